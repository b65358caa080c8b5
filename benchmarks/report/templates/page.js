"use strict";
// Sort by the buttons in the headers, filter by the selects, show the values of single seeds on hover and focus.
const UNITS = { min: 60, h: 3600, GB: 1000 };

function sortKey(cell) {
  if ("sort" in cell.dataset) return NaN; // a text: a name, a date, a hash
  const found = cell.textContent.trim().replace("−", "-").match(/^[<+]?\s*(-?[\d.]+)[^a-zA-Z]*([a-zA-Z]*)/);
  return found && !isNaN(found[1]) ? found[1] * (UNITS[found[2]] || 1) : NaN;
}

function sortTable(header) {
  const column = header.cellIndex, body = header.closest("table").tBodies[0];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const text = (row) => (row.cells[column].dataset.sort || row.cells[column].textContent).trim();
  const rows = [...body.rows].map((row) => [row, sortKey(row.cells[column]), text(row)]);
  const numbers = rows.some((row) => !isNaN(row[1]));
  rows.sort(([, a, s], [, b, t]) => {
    if (numbers && isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1; // what is no number comes last in both orders
    const order = numbers && !isNaN(a) ? a - b : s.localeCompare(t, "en", { numeric: true });
    return descending ? -order : order;
  });
  body.append(...rows.map((row) => row[0]));
}

function filterRows() {
  const wanted = [...document.querySelectorAll("select[data-key]")].filter((select) => select.value);
  const hidden = (data) => wanted.some((select) => {
    const value = data[select.dataset.key];
    return value && !value.split(" ").includes(select.value);
  });
  for (const table of document.querySelectorAll("table[data-filtered]")) {
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = hidden(row.dataset);
      count += !row.hidden;
    }
    const figure = table.closest("figure");
    if (figure) figure.hidden = count === 0;
  }
  const runs = [...document.querySelectorAll(".runs tbody tr")];
  document.getElementById("count").textContent = runs.filter((row) => !row.hidden).length + " of " + runs.length + " runs";
}

function showSeeds(cell) {
  const tip = document.getElementById("tip"), place = cell.getBoundingClientRect();
  tip.textContent = cell.dataset.seeds;
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 4)) + "px";
  const below = place.bottom + 4;
  tip.style.top = (below + tip.offsetHeight < innerHeight ? below : place.top - tip.offsetHeight - 4) + "px";
}

const hideSeeds = () => { document.getElementById("tip").hidden = true; };
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sortTable(button.closest("th")));
}
for (const select of document.querySelectorAll("select[data-key]")) select.addEventListener("change", filterRows);
for (const cell of document.querySelectorAll("td[data-seeds]")) {
  for (const event of ["mouseenter", "focus"]) cell.addEventListener(event, () => showSeeds(cell));
  for (const event of ["mouseleave", "blur"]) cell.addEventListener(event, hideSeeds);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideSeeds(); });
addEventListener("scroll", hideSeeds, { passive: true });
filterRows(); // a browser keeps the choices of a reloaded page
