"""Figures and the page, from run folders of a study that never ran."""

import html.parser
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_study import Study, benchmark, change, fail, finish_all, groups_of, made_up, partial, troubled, write
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.report import figures
from benchmarks.report.figures import curve_of, draw_curves, draw_scores, off_axis
from benchmarks.report.render import write_report
from benchmarks.report.runs import collect
from benchmarks.report.styles import styles_of


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finish_all(Study(tmp_path_factory.mktemp("results") / "smoke"))


def report_of(study):
    """{file name: its path}"""
    collect(study, partial(study))
    return {path.name: path for path in write_report(study, partial(study))}


def claims_of(study):
    return report_of(study)["claims.md"].read_text()


# ---- figures ---------------------------------------------------------------------------------------------


def test_the_same_runs_give_the_same_bytes(tmp_path):
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark()}, seeds=(0, 1)))
    first = {name: path.read_bytes() for name, path in report_of(study).items()}
    assert set(first) == {"scores.png", "scores.svg", "curves.png", "curves.svg",
                          "tables.md", "tables.tex", "claims.md", "index.html"}  # fmt: skip
    assert {name: path.read_bytes() for name, path in report_of(study).items()} == first


def drawn_points(panel):
    return [value for line in panel.lines for value in line.get_xdata()]


def test_scores_show_every_seed_and_the_published_value(study):
    panel = draw_scores(study, groups_of(study)[1]).axes[0]
    values = drawn_points(panel)
    assert panel.get_title() == "cifar10 (joint)"
    for seed in study.seeds:
        assert any(np.isclose(values, 100 * made_up(study.run("cifar10", "joint", "scl", seed))))
    assert any(np.isclose(values, 64.5))  # PICA's


def test_incomplete_seeds_are_named_not_drawn(tmp_path):
    study = troubled(tmp_path)
    groups = groups_of(study)[1]
    panel = next(axes for axes in draw_scores(study, groups).axes if axes.get_title() == "digits (joint)")
    assert "failed (2 of 3 done)" in [text.get_text() for text in panel.texts]
    assert not any(np.isclose(drawn_points(panel), 100 * made_up(study.run("digits", "joint", "pica", 0))))
    panel = next(axes for axes in draw_curves(study, groups).axes if axes.get_title() == "digits (joint)")
    assert "PICA: failed (2 of 3 done)" in panel.get_xlabel()
    names = ["SimCLR + k-means", "SCAN (clustering step), after SimCLR", "SCL"]
    assert [line.get_label() for line in panel.lines] == names


def test_an_outlier_far_below_is_an_arrow_at_the_edge(tmp_path):
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark()}))
    panel = draw_scores(study, groups_of(study)[1]).axes[0]  # pixels 33, SimCLR 71, PICA 73, SCAN 86, SCL 91
    mean = 100 * np.mean([made_up(study.run("digits", "joint", "pixels", seed)) for seed in study.seeds])
    assert f"← {mean:.1f}" in [text.get_text() for text in panel.texts]
    assert panel.get_xlim()[0] > 60 and min(drawn_points(panel)) > 60


def test_nothing_leaves_the_axis_for_less_than_a_third_of_it_or_beside_a_published_value(study):
    groups = groups_of(study)[1]
    groups = groups[groups.benchmark == "digits"].set_index("stage", drop=False)
    assert off_axis(groups) == "pixels"
    assert off_axis(groups.drop("pixels")) is None
    assert off_axis(groups.loc[["pixels", "scl"]]) is None
    for stage, acc in (("pixels", 0.3), ("pica", 0.4)):
        published = pd.Series({stage: SimpleNamespace(acc=acc)}, dtype=object).reindex(groups.index, fill_value=None)
        assert off_axis(groups.assign(published=published.where(published.notna(), None))) is None


def test_too_few_seeds_for_an_interval_draw_none_and_say_so(tmp_path):
    for count, stated in ((1, True), (2, False)):
        study = Study(tmp_path / str(count), benchmarks={"digits": benchmark()}, seeds=tuple(range(count)))
        figure = draw_scores(finish_all(study), groups_of(study)[1])
        assert ("too few for an interval" in figure.get_supxlabel()) == stated
        assert any(line.get_linestyle() == "-" for line in figure.axes[0].lines) != stated


def test_an_interval_is_drawn_within_0_and_100_percent(study):
    groups = groups_of(study)[1]
    panel = draw_scores(study, groups.assign(acc_low=-0.2, acc_high=1.3)).axes[0]
    ends = [tuple(line.get_xdata()) for line in panel.lines if line.get_linestyle() == "-"]
    assert ends and set(ends) == {(0.0, 100.0)}


def test_bands_are_drawn_for_a_few_curves_only(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MOST_BANDS", 4)
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark()}))
    figure = draw_curves(study, groups_of(study)[1])
    assert len(figure.axes[0].collections) == 4 and "no bands" not in figure.get_suptitle()
    run = study.run("digits", "joint", "simclr", 0)  # a curve for pixels makes five
    curve = json.loads((run.directory / "metrics.json").read_text())["per_epoch"]
    for seed in study.seeds:
        change(study.run("digits", "joint", "pixels", seed), "metrics.json", per_epoch=curve)
    figure = draw_curves(study, groups_of(study)[1])
    assert len(figure.axes[0].lines) == 5 and len(figure.axes[0].collections) == 0
    assert "no bands in panels of more than 4 curves" in figure.get_suptitle()
    assert "minimum to maximum" not in figure.get_suptitle()


def test_eighteen_stages_differ_in_color_and_marker_and_in_gray():
    styles = styles_of(f"s{i}" for i in range(18)).values()
    assert len({(color, marker) for color, _, marker in styles}) == 18
    assert len({(dash, marker) for _, dash, marker in styles}) == 18


def test_curves_are_drawn_at_the_epochs_that_all_seeds_kept(tmp_path):
    study = finish_all(Study(tmp_path / "s", benchmarks={"digits": benchmark()}))
    kept = [{"epoch": epoch, "acc": 0.5, "nmi": 0.5, "ari": 0.5} for epoch in (20, 25, 100)]
    change(study.run("digits", "joint", "scl", 0), "metrics.json", per_epoch=kept)
    group = next(group for group in groups_of(study)[1].itertuples() if group.stage == "scl")
    curve = curve_of(study, group)
    assert curve.index.tolist() == [20, 100] and curve.shape == (2, 3) and curve.iloc[:, 0].tolist() == [50, 50]


def texts_of(figure):
    """Every drawn text: those of the figure, and each panel's title, labels, notes, and visible ticks."""
    found = [figure._suptitle, figure._supxlabel, *(text for legend in figure.legends for text in legend.get_texts())]
    for panel in figure.axes:
        found += [panel.title, panel.xaxis.label, panel.yaxis.label, *panel.texts]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text is not None and text.get_text()]


@pytest.mark.parametrize("count", [1, 4])
def test_nothing_is_cut_off_or_written_over(tmp_path, count):
    study = finish_all(
        Study(tmp_path / "s", benchmarks={f"benchmark-{i}": benchmark(dataset="digits") for i in range(count)})
    )
    write(study.run("benchmark-0", "joint", "pica", 2), "record.json", {})
    for draw in (draw_scores, draw_curves):
        figure = draw(study, groups_of(study)[1])
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in texts_of(figure)]
        assert len(boxes) > 10 * count
        for i, (text, box) in enumerate(boxes):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
            for other, before in boxes[:i]:
                assert not box.overlaps(before), (text, other)


# ---- the page --------------------------------------------------------------------------------------------


class Checker(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects links and sources."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.ids |= {value for name, value in attributes if name == "id"}
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def page_of(study):
    return report_of(study)["index.html"].read_text()


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    study = troubled(tmp_path)
    fail(study.run("digits", "joint", "pica", 2), "<script>alert(1)</script>")
    text = page_of(study)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    links = [link for link in checker.links if not link.startswith("#")]
    assert links and all((partial(study) / "report" / link).is_file() for link in links)
    assert {link[1:] for link in checker.links if link.startswith("#")} <= checker.ids
    assert "<script>alert" not in text and "&lt;script&gt;" in text and "http" not in text
    for status, count in (("done", 58), ("failed", 1), ("missing", 1), ("skipped", 30)):
        assert text.count(f'class="status {status}"') == count
    assert "fedcba9876-dirty" in text


@pytest.mark.parametrize("benchmarks", [{"digits": benchmark()}, {}])
def test_a_study_without_a_finished_run_gets_all_its_files(tmp_path, benchmarks):
    study = Study(tmp_path / "none", benchmarks=benchmarks)
    for run in study.runs():
        fail(run, "out of memory")
    text = page_of(study)
    assert ("out of memory" in text) == bool(benchmarks) and 'class="figure"' not in text
    assert ("Runs: 0 of 15 done" if benchmarks else "No runs are planned") in claims_of(study)
