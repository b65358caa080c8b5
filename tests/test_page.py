"""The report page in a real headless browser, from a tiny study that ran, and its parts without a browser."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY_METHODS, tiny_mapping
from fake_study import Study, benchmark, finish_all

from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.report import page, run_page
from benchmarks.report.aggregate import aggregate
from benchmarks.report.charts import line_chart
from benchmarks.report.gallery import gallery
from benchmarks.report.render import write_report
from benchmarks.report.run_data import RunData
from benchmarks.report.runs import collect, read_runs
from benchmarks.report.significance import comparisons
from benchmarks.report.styles import styles_of
from benchmarks.report.tables import tables_by_protocol
from benchmarks.study import load_study, write_plan

TINY_DIGITS = {"dataset": "digits", "subset": 200, "size": 8, "clusters": 10}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(digits, tmp_path_factory, train_all):
    """The folder of the report of a finished study: two methods with confidence, one without; two seeds."""
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


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


def opened(browser, path, complaints, **options):
    """A page of the report; errors and requests for anything but its files are added to `complaints`."""
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
def test_nothing_is_cut_off_and_text_has_contrast(browser, report, width, scheme):
    for path in (report / "index.html", report / "runs" / "tiny-digits-joint-scl-seed0.html"):
        page = opened(browser, path, [], viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRASTS) == []
        page.close()


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
    if (!text || element.closest("script, style, [hidden], option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.textContent.slice(0, 30), ratio]);
  }
  return low;
}"""


# ---- without a browser -----------------------------------------------------------------------------------


def data_of(clusters=3, size=48, **changed):
    """Twelve images in two clusters of three, two of them in the wrong one; confidence falls with the row."""
    rng = np.random.default_rng(0)
    arrays = {
        "rows": np.arange(12),
        "assignments": np.repeat([0, 2], 6),
        "confidence": np.linspace(1, 0.5, 12),
        "labels": np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, -1]),
        "classes": ["cat", "dog"],
        "images": rng.integers(0, 256, (12, size, size, 3), dtype=np.uint8),
    }
    return RunData(clusters=clusters, **(arrays | changed))


def test_a_gallery_shows_extremes_and_errors():
    clusters, size = gallery(data_of(), 10**6)
    assert [(c.number, c.size, c.match) for c in clusters] == [(0, 6, "dog"), (1, 0, ""), (2, 6, "cat")]
    lines = {line.kind: line.names for line in clusters[0].lines}
    assert lines["most confident"][0] == "row 0 (dog)" and lines["misassigned"] == ["row 4 (cat)"]
    assert clusters[1].source is None and size < 10**6
    assert {line.kind: line.names for line in clusters[2].lines}["misassigned"] == ["row 9 (dog)"]


def test_a_gallery_without_confidence_and_labels_is_in_the_order_of_the_data():
    clusters, _ = gallery(
        data_of(confidence=None, labels=None, classes=[], names=[f"<{i}>.jpg" for i in range(12)]), 10**6
    )
    assert clusters[0].lines == [("first images", [f"<{i}>.jpg" for i in range(6)])]


@pytest.mark.parametrize("budget", [30_000, 8_000, 1_000, 0])
def test_a_gallery_keeps_to_its_budget(budget):
    data = data_of(size=64)
    clusters, _ = gallery(data, budget)
    assert sum(len(cluster.source or "") for cluster in clusters) <= budget


def test_a_confusion_matrix_may_be_rectangular():
    data = data_of()
    assert data.confusion.tolist() == [[1, 5], [0, 0], [4, 1]] and data.match == {0: 1, 2: 0}


def test_a_chart_of_nothing_is_none():
    assert line_chart("x", {"x": [(1, float("nan"))]}) is None
    assert line_chart("x", {"<b>": [(1, 2.0), (2, 2.0)], "y": [(1, 3.0)]}).count("&lt;b&gt;") == 1


def test_a_method_looks_the_same_in_every_study():
    one, other = styles_of(["scl", "simclr", "mine"]), styles_of(["mine", "kmeans", "scl"])
    assert one["scl"] == other["scl"] and one["mine"] == other["mine"]


@pytest.fixture
def unlabeled(tiny_study, train_all, digits, tmp_path):
    """The folder of the report of a study on digits whose labels are gone."""
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    (data / "tiny-digits" / "labels.npy").unlink()
    facts = json.loads((data / "tiny-digits" / "benchmark.json").read_text())
    (data / "tiny-digits" / "benchmark.json").write_text(json.dumps(facts | {"labels_sha256": None, "classes": None}))
    study = tiny_study("kmeans", "scl", seeds=(0, 1), data=data, benchmarks={"tiny-digits": TINY_DIGITS})
    for run in train_all(study):
        evaluate_run(run.directory, data / run.benchmark)
    collect(study, study.results)
    write_report(study, study.results)
    return study.results / "report"


def test_in_a_large_study_one_seed_of_a_cell_has_a_gallery(tiny_study, train_all, monkeypatch):
    monkeypatch.setattr(run_page, "ALL_GALLERIES", 1)
    study = tiny_study("kmeans", seeds=(0, 1))
    for run in train_all(study):
        evaluate_run(run.directory, study.data / run.benchmark)
    collect(study, study.results)
    write_report(study, study.results)
    pages = [path.read_text() for path in sorted((study.results / "report" / "runs").iterdir())]
    assert ["data:image/" in page for page in pages] == [True, False]
    assert "one seed of each method and benchmark" in pages[1]


def test_a_page_without_labels_has_no_empty_plot_and_no_column_of_dashes(unlabeled):
    text = (unlabeled / "index.html").read_text()
    assert 'class="figure"' not in text and 'id="claims"' not in text
    assert '>ACC</button></th><th scope="col"><button type="button">NMI' not in text
    assert "clusters found" in text and "agreement of seeds" in text
    page = (unlabeled / "runs" / "tiny-digits-joint-scl-seed0.html").read_text()
    assert "Misassigned" not in page and "Confusion" not in page and "data:image/png" in page


def test_pages_of_removed_runs_are_removed(tmp_path):
    study = Study(tmp_path / "s", benchmarks={"digits": benchmark()})
    stale = tmp_path / "s" / "report" / "runs" / "old-joint-scl-seed0.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    collect(study, study.results / "partial")
    runs = read_runs(study.results / "partial")
    assert run_page.write_run_pages(study, runs, study.results, SimpleNamespace(render=lambda context: "")) == {}
    assert not stale.exists()


def test_tables_of_a_tuned_data_set_link_to_its_runs(report):
    """The caption and the column carry a dagger; links, filters and seed values go by the benchmark's name."""
    results = (report / "index.html").read_text().partition('id="results"')[2].partition('id="figures"')[0]
    assert (
        "tiny-digits † (joint)" in results
        and 'data-benchmark="tiny-digits" data-protocol="joint" data-stage="scl"' in results
    )
    assert 'href="runs/tiny-digits-joint-scl-seed1.html"' in results


def test_each_table_shows_the_seeds_of_its_own_benchmark(tmp_path):
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark(), "cifar10": benchmark()}))
    collect(study, study.results)
    runs = read_runs(study.results)
    groups = aggregate(study, runs)
    found = tables_by_protocol(study, runs, groups, comparisons(study, runs, groups))
    for protocol, tables in found.items():
        blocks = [page._block(study, runs, protocol, table, {}) for table in tables]
        assert [block.benchmark for block in blocks] == ["", "digits", "cifar10", ""]
        mine = runs[(runs.protocol == protocol) & (runs.stage == "scl")].set_index(["benchmark", "seed"])
        across, on_digits = (next(row for row in blocks[i].rows if row.stage == "scl") for i in (0, 1))
        assert f"seed 0: {100 * mine.acc['digits', 0]:.2f}" in on_digits.seeds[2]
        assert f"seed 0: {100 * mine.acc['digits', 0]:.2f}" in across.seeds[1]
