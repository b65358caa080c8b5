"use strict";
// The buttons below the map highlight one cluster or class; the second press shows all again.
const buttons = [...document.querySelectorAll(".keys button")];
function highlight(chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
  const [key, value] = chosen ? Object.entries(chosen.dataset)[0] : [];
  for (const path of document.querySelectorAll(".map path")) path.classList.toggle("dim", Boolean(chosen) && path.dataset[key] !== value);
}
for (const button of buttons) {
  button.addEventListener("click", () => highlight(button.getAttribute("aria-pressed") === "true" ? null : button));
}
for (const input of document.querySelectorAll("#map input")) input.addEventListener("change", () => highlight(null));
