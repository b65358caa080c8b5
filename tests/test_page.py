"""The report page of a tiny, finished study in a real headless browser, and tests that need no browser."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from conftest import TINY_METHODS, tiny_mapping
from fake_study import METHODS, Study, benchmark, change, finish, finish_all, groups_of, texts_of
from folders import digits as digit_files
from folders import tiny_settings

from benchmarks.cli import main
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.report import run_page
from benchmarks.report.charts import line_chart
from benchmarks.report.render import add_gallery, write_report
from benchmarks.report.runs import collect
from benchmarks.report.significance import comparisons
from benchmarks.report.styles import styles_of
from benchmarks.report.tables import tables_by_protocol
from benchmarks.study import load_study, write_plan

TINY_DIGITS = {"dataset": "digits", "subset": 200, "size": 8, "clusters": 10}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(browser, digits, tmp_path_factory, train_all):
    """The folder of the report of a finished study: two methods with a map, one without; two seeds."""
    methods = {stage: TINY_METHODS[stage] for stage in ("kmeans", "simclr", "scl")}
    results = tmp_path_factory.mktemp("report") / "results"
    mapping = tiny_mapping(digits, results, methods, seeds=[0, 1], reference="scl")
    study = load_study(mapping)
    write_plan(study, mapping)
    for run in train_all(study):
        evaluate_run(run.directory, study.data / run.benchmark)
    collect(study, study.results)
    write_report(study, study.results)
    return study.results / "report"


def opened(browser, path, complaints, **options):
    """Open a page of the report; errors and requests for anything but its files are added to `complaints`."""
    page = browser.new_page(**options)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto(path.as_uri())
    return page


def column(page, name):
    """The texts of a column of the table of runs."""
    names = [text.split()[0] for text in page.locator(".runs thead th").all_inner_texts()]
    return page.locator(f".runs tbody tr:not([hidden]) td:nth-child({names.index(name) + 1})").all_inner_texts()


@pytest.mark.browser
def test_the_page_sorts_filters_and_opens_runs(browser, report):
    complaints = []
    page = opened(browser, report / "index.html", complaints)
    button = page.locator(".runs thead button", has_text="ACC")
    button.focus()
    page.keyboard.press("Enter")
    values = [float(text) for text in column(page, "ACC")]
    assert values == sorted(values) and len(set(values)) > 2
    page.keyboard.press("Enter")
    assert [float(text) for text in column(page, "ACC")] == values[::-1]
    assert page.locator(".runs th[aria-sort=descending]").inner_text().startswith("ACC")

    page.select_option("select[data-key=stage]", "simclr")
    assert set(column(page, "method")) == {"simclr"} and len(column(page, "method")) == 2
    assert page.locator("#count").inner_text() == "2 of 6 runs"
    page.select_option("select[data-key=stage]", "")

    page.locator("td[data-seeds]").first.focus()
    assert page.locator("#tip").inner_text().startswith("seed 0: ")
    page.locator(".runs td a").first.click()
    page.wait_for_selector("#settings")
    assert page.url.endswith(".html") and "/runs/" in page.url
    assert complaints == []


@pytest.mark.browser
def test_pages_of_runs_have_curves_and_decoded_images(browser, report):
    complaints = []
    for path in sorted((report / "runs").iterdir()):
        page = opened(browser, path, complaints)
        widths = page.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
        assert widths and min(widths) > 0
        assert page.locator(".chart").count() == (0 if "kmeans" in path.name else len(loss_terms(path)) + 2)
        assert ("no confidence" in page.content()) == ("scl" not in path.name)  # those that use k-means
        assert page.locator(".matrix td.match").count() == 10
        page.close()
    assert complaints == []


def loss_terms(path):
    """Columns of history.csv that are terms of the loss, or the loss."""
    stage, seed = path.stem.split("-")[-2:]
    run = path.parents[2] / "runs" / "tiny-digits" / "joint" / stage / seed
    return set((run / "history.csv").read_text().splitlines()[0].split(",")) - {
        "epoch",
        "steps",
        "seconds",
        "learning_rate",
    }


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_text_has_contrast(report, photos, browser, width, scheme):
    for path in (report / "index.html", report / "runs" / "tiny-digits-joint-scl-seed0.html", photos):
        page = opened(browser, path, [], viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRASTS) == []
        page.close()


@pytest.mark.browser
def test_printed_pages_are_light_and_fit_the_paper(report, photos, browser):
    """A4 is 794 px wide, minus margins; what scrolls on screen would be cut off on paper."""
    for path in (report / "index.html", report / "runs" / "tiny-digits-joint-scl-seed0.html", photos):
        page = opened(browser, path, [], viewport={"width": 718, "height": 1000}, color_scheme="dark")
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 718
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible() and page.evaluate(CONTRASTS) == []
        page.close()


@pytest.mark.browser
def test_the_map_is_colored_by_cluster_or_class_and_highlights_one(report, browser):
    complaints = []
    page = opened(browser, report / "runs" / "tiny-digits-joint-scl-seed0.html", complaints)
    drawn = page.locator(".map path").evaluate_all("all => all.map(p => p.getAttribute('d').match(/M/g).length)")
    assert sum(drawn) == 200
    color = "p => getComputedStyle(p).stroke"
    path = page.locator(".map path:not(.k0.c0, .k1.c1, .k2.c2, .k3.c3, .k4.c4, .k5.c5, .k6.c6, .k7.c7, .k8.c8, .k9.c9)")
    by_cluster = path.first.evaluate(color)
    page.get_by_label("class", exact=True).focus()
    page.keyboard.press("Space")
    assert path.first.evaluate(color) != by_cluster
    button = page.locator(".keys[data-by=c] button").first
    assert button.is_visible() and not page.locator(".keys[data-by=k]").is_visible()

    button.focus()
    assert button.evaluate("b => getComputedStyle(b).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    shown = page.locator(".map path:not(.dim)").evaluate_all("all => all.map(p => p.dataset.c)")
    assert set(shown) == {"0"} and button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert page.locator(".map path.dim").count() == 0
    assert complaints == []


@pytest.mark.browser
def test_runs_without_features_have_no_map(report, browser):
    page = opened(browser, report / "runs" / "tiny-digits-joint-kmeans-seed0.html", [])
    assert page.locator("#map, a[href='#map'], script").count() == 0


@pytest.mark.browser
def test_the_page_of_a_folder_has_its_images_and_table(photos, browser):
    complaints = []
    page = opened(browser, photos, complaints)
    assert min(page.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")) > 0
    assert page.locator("#gallery h3").count() == len({row.split(",")[1] for row in lines(photos.parent)})
    page.locator("#gallery summary").first.click()
    names = page.locator("#gallery details[open] li").first.inner_text()
    assert names.removeprefix("most confident: ").split(", ")[0] in {row.split(",")[0] for row in lines(photos.parent)}
    assert page.locator("a[download]").all_inner_texts() == ["clusters.csv", "summary.json"]
    assert complaints == []


def lines(folder):
    return (folder / "clusters.csv").read_text().splitlines()[1:]


@pytest.fixture
def photos(browser, tmp_path, monkeypatch):
    """The page of 40 unlabeled images after `scl cluster`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    digit_files(tmp_path / "photos", 40, classes=False)
    settings = ["--config", str(tiny_settings(tmp_path / "tiny.yaml")), "--threads", "1"]
    request = [str(tmp_path / "photos"), "--clusters", "4", "--method", "kmeans", "--out", str(tmp_path / "found")]
    assert main(["cluster", *request, *settings]) == 0
    return tmp_path / "found" / "index.html"


CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color[3] !== 0) { layers.push(color); if ((color[3] ?? 1) === 1) break; }
    }
    const over = (under, c) => c.slice(0, 3).map((v, i) => v * (c[3] ?? 1) + under[i] * (1 - (c[3] ?? 1)));
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || element.closest("script, style, title, [hidden], option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.textContent.slice(0, 30), ratio]);
  }
  return low;
}"""


# ---- without a browser -----------------------------------------------------------------------------------


SORTING = """
const cell = (html) => ({
  dataset: html.startsWith("<td data-sort>") ? { sort: "" } : {}, textContent: html.replace(/<.*?>/g, ""),
});
const document = { querySelectorAll: () => [], addEventListener: () => {}, getElementById: () => ({}) };
const addEventListener = () => {};
PAGE
const rows = CELLS.map((html) => ({ cells: [cell(html)] })), sorted = [];
const body = { rows, append: (...found) => sorted.push(...found) };
sortTable({ cellIndex: 0, closest: () => ({ tBodies: [body] }), getAttribute: () => null, setAttribute: () => {},
  parentNode: { cells: [] } });
console.log(JSON.stringify(sorted.map((row) => row.cells[0].textContent)));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
@pytest.mark.parametrize("position, expected", [
    (10, ["2b00000000", "2b00000000", "2c00000000"]),  # commit
    (12, [f"2026-11-{day}T10:30:00+00:00" for day in ("09", "20", "21")]),  # finished
    (7, ["50.0 min", "50.1 min", "2.0 h"]),  # time
])  # fmt: skip
def test_columns_of_the_runs_are_sorted_by_what_they_hold(tmp_path, position, expected):
    methods = {"simclr": METHODS["simclr"]}
    study = Study(tmp_path / "sorted", {"digits": benchmark()}, methods=methods, reference=None)
    values = [("21", "2b00000000", 3001.0), ("09", "2c00000000", 7200.0), ("20", "2b00000000", 3006.0)]
    for run, (day, commit, seconds) in zip(study.runs(), values):
        finish(run, finished=f"2026-11-{day}T10:30:00+00:00", commit=commit, seconds=seconds)
    page = texts_of(study, page=True)["index.html"]
    rows = re.findall("<tr.*?</tr>", page[page.index('<table class="runs"') :], flags=re.DOTALL)[1:]
    cells = [re.findall("<td.*?</td>", row, flags=re.DOTALL)[position - 1] for row in rows]
    script = SORTING.replace("CELLS", json.dumps(cells))
    script = script.replace("PAGE", page.rpartition("<script>")[2].partition("filterRows(); //")[0])
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected


def test_a_chart_of_nothing_is_none():
    assert line_chart("x", {"x": [(1, float("nan"))]}) is None
    assert line_chart("x", {"<b>": [(1, 2.0), (2, 2.0)], "y": [(1, 3.0)]}).count("&lt;b&gt;") == 1


def test_a_method_looks_the_same_in_every_study():
    one, other = styles_of(["scl", "simclr", "mine"]), styles_of(["mine", "kmeans", "scl"])
    assert one["scl"] == other["scl"] and one["mine"] == other["mine"]


@pytest.fixture
def unlabeled_study(tiny_study, train_all, digits, tmp_path):
    """A finished study on digits whose labels were removed."""
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    (data / "tiny-digits" / "labels.npy").unlink()
    facts = json.loads((data / "tiny-digits" / "benchmark.json").read_text())
    (data / "tiny-digits" / "benchmark.json").write_text(json.dumps(facts | {"labels_sha256": None, "classes": None}))
    study = tiny_study("kmeans", "scl", seeds=(0, 1), data=data, benchmarks={"tiny-digits": TINY_DIGITS})
    for run in train_all(study):
        evaluate_run(run.directory, data / run.benchmark)
    return study


@pytest.fixture
def unlabeled(unlabeled_study):
    """The folder of its report."""
    collect(unlabeled_study, unlabeled_study.results)
    write_report(unlabeled_study, unlabeled_study.results)
    return unlabeled_study.results / "report"


def test_in_a_large_study_one_seed_of_a_cell_has_a_gallery(tiny_study, train_all, monkeypatch):
    monkeypatch.setattr(run_page, "ALL_GALLERIES", 1)
    study = tiny_study("kmeans", seeds=(0, 1))
    for run in train_all(study):
        evaluate_run(run.directory, study.data / run.benchmark)
    collect(study, study.results)
    write_report(study, study.results)
    pages = [path.read_text() for path in sorted((study.results / "report" / "runs").iterdir())]
    assert ["data:image/" in page for page in pages] == [True, False]
    assert "scl report STUDY --gallery tiny-digits/joint/kmeans/1" in pages[1]

    path = add_gallery(study, "tiny-digits/joint/kmeans/1")
    assert path.name == "tiny-digits-joint-kmeans-seed1.html"
    assert "data:image/" in path.read_text() and "No gallery" not in path.read_text()
    assert path.read_text().partition('id="provenance"')[2] == pages[1].partition('id="provenance"')[2]
    with pytest.raises(ValueError, match="not a run of this study; give BENCHMARK/PROTOCOL/STAGE/SEED, such as"):
        add_gallery(study, "tiny-digits/joint/kmeans/7")
    (study.run("tiny-digits", "joint", "kmeans", 1).directory / "metrics.json").unlink()
    with pytest.raises(ValueError, match="--gallery: .*: trained, not evaluated; run `scl report` once"):
        add_gallery(study, "tiny-digits/joint/kmeans/1")
    collect(study, study.results / "partial")  # the complete report is now the older one
    write_report(study, study.results / "partial")
    assert add_gallery(study, "tiny-digits/joint/kmeans/0").is_relative_to(study.results / "partial")


def test_a_page_without_labels_has_no_empty_plot_and_no_column_of_dashes(unlabeled):
    text = (unlabeled / "index.html").read_text()
    assert 'class="figure"' not in text and 'id="claims"' not in text
    assert '>ACC</button></th><th scope="col"><button type="button">NMI' not in text
    assert "clusters found" in text and "agreement of seeds" in text
    page = (unlabeled / "runs" / "tiny-digits-joint-scl-seed0.html").read_text()
    assert "Misassigned" not in page and "Confusion" not in page and "data:image/png" in page


def test_a_damaged_file_of_a_run_without_labels_does_not_end_the_report(unlabeled_study):
    """Its row has dashes, the other method's row has numbers, and its page states what to do."""
    study, folder = unlabeled_study, unlabeled_study.results
    (study.run("tiny-digits", "joint", "kmeans", 1).directory / "clusters.json").write_bytes(b"damaged")
    collect(study, folder)
    write_report(study, folder)
    found = (folder / "report" / "index.html").read_text().partition("clusters found")[2].partition("</figure>")[0]
    assert [row.count("–") for row in found.partition("<tbody>")[2].split("<tr")[1:]] == [6, 0]
    page = (folder / "report" / "runs" / "tiny-digits-joint-kmeans-seed1.html").read_text()
    assert "clusters.json is missing, damaged" in page and "evaluate this run again (scl evaluate)" in page


def test_an_unlabeled_benchmark_beside_a_labeled_one_has_no_column_and_no_panel_of_its_own(tmp_path):
    """No table across benchmarks has its scores, but the table of runs has its runs."""
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark(), "cifar10": benchmark()}))
    for run in study.runs():
        if run.benchmark == "cifar10":
            unscored = {"scores": None, "per_epoch": [], "oracle": None, "reason": "the data set has no labels"}
            change(run, "metrics.json", **unscored)
    collect(study, study.results)
    write_report(study, study.results)
    text = (study.results / "report" / "index.html").read_text()
    results, _, figures = text.partition('id="results"')[2].partition('id="figures"')
    across, *_ = results.split("<figure>")[1:]
    assert "digits" in across and "cifar10" not in across
    # the caption and the column have a dagger; links and filters use the benchmark's name
    assert "digits † (joint)" in results and 'href="runs/digits-joint-scl-seed1.html"' in results
    assert 'data-benchmark="digits" data-protocol="joint" data-stage="scl"' in results
    assert ">ACC<" not in next(table for table in results.split("<figure>") if table.startswith("<figcaption>cifar10"))
    assert "cifar10 (joint)" not in figures.partition('id="claims"')[0]
    assert text.partition('id="runs"')[2].count("the data set has no labels") == 15


def test_pages_of_removed_runs_are_removed(tmp_path):
    study = Study(tmp_path / "s", benchmarks={"digits": benchmark()})
    stale = tmp_path / "s" / "report" / "runs" / "old-joint-scl-seed0.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    of_another_process = stale.with_name(".new.tmp.html")
    of_another_process.touch()
    runs, _ = groups_of(study)
    assert run_page.write_run_pages(study, runs, study.results, SimpleNamespace(render=lambda context: "")) == {}
    assert not stale.exists() and of_another_process.exists()


def test_each_table_shows_the_seeds_of_its_own_benchmark(tmp_path):
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark(), "cifar10": benchmark()}))
    runs, groups = groups_of(study)
    found = tables_by_protocol(study, runs, groups, comparisons(study, runs, groups))
    for protocol, tables in found.items():
        assert [table.benchmark for table in tables] == ["", "digits", "cifar10", ""]
        mine = runs[(runs.protocol == protocol) & (runs.stage == "scl")].set_index(["benchmark", "seed"])
        across, on_digits = (table.rows[table.stages.index("scl")] for table in tables[:2])
        assert f"seed 0: {100 * mine.acc['digits', 0]:.2f}" in on_digits[2].seeds
        assert f"seed 0: {100 * mine.acc['digits', 0]:.2f}" in across[1].seeds
