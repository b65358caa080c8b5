"""Text from untrusted files (records, failures, configurations) stays text in every output: it adds no line, markup,
command, or terminal sequence."""

import html.parser
import json
import re
import sys
import warnings

import pytest
import yaml
from fake_study import (
    METHODS,
    Study,
    benchmark,
    block,
    change,
    fail,
    finish,
    partial,
    texts_of,
    write,
    write_no_figures,
)

from benchmarks.bars import ProgressBar
from benchmarks.cli import in_one_line, main
from benchmarks.report import render
from benchmarks.report.formats import code, escape_html, escape_latex, escape_markdown
from benchmarks.report.render import write_report
from benchmarks.report.runs import COLUMNS, TEXT, collect
from benchmarks.study import load_study
from scl.config import complete, digest
from scl.util.text import printable, say

pytestmark = pytest.mark.slow

HOSTILE = [  # a study with each of them is reported
    "CPU\n\\input{/etc/passwd}",
    "\r\n\\end{tabular}\n\n% x\\\\ & $y_1^2$ #1 ~ { } {",
    "[10cm] * \\begin{verbatim}",
    "<script>alert(1)</script> <!-- & &lt; &#60; <img src=x onerror=alert(1)> </td></table>",
    "\"><a href='javascript:alert(1)'>x</a>",
    "a | b \\| c \\\\| d\n| e | f |",
    "[a](http://evil.example) ![b](http://evil.example/x.png) [c]: http://evil.example [^1] <http://evil.example>",
    "`code` ```x\n``` ~~gone~~ *a* **b** _c_ __d__ \\_e_ $f$",
    "- item",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x00 \x08\x7f",
    "\u202egnp.exe \u2066 \u2028 \u2029 \x85 \x0b \x0c \x1c",
    "x" * 50 + "\\",
]  # fmt: skip
FURTHER = [
    "*[1cm]", "<span onmouseover=alert(1)>", "[c]: http://evil.example", "[x] done",
    "http://evil.example www.evil.example https://user:s3cret@evil.example",
    "# head\n## head\n> quote\n- item\n1. item\n---\n===\n", "1. item", "> quote", "#", "---", "===",
    "_hidden", "$\\frac{", "\\", "`", "``",
]  # fmt: skip


def odd(text):
    return [char for char in text if not char.isprintable() and char != "\n"]


# ---- the functions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("escape", [escape_markdown, escape_latex, escape_html, code, printable])
def test_escaped_text_is_one_line_of_printable_characters(escape):
    for text in [*HOSTILE, *FURTHER, "\ud800 \udcff", ""]:
        assert escape(text).isprintable()


def test_escaped_text_is_nothing_but_text_in_an_item_a_cell_and_a_line():
    for text in HOSTILE + FURTHER:
        found = escape_markdown(text)
        assert markdown_outline(f"- {found}\n| x | {found} |\n{found}") == [("- ", 0), ("| ", 2), ("", 0)], text
        found = escape_latex(text)
        assert [line[:2] for line in latex_outline(f"{found}\nx & {found}")] == [("", 0), ("", 1)], text
        assert html_outline(f'<p title="{escape_html(text)}">{escape_html(text)}') == [("p", ["title"], None)], text


@pytest.mark.parametrize("escape", [escape_markdown, escape_latex, escape_html])
def test_ordinary_text_stays_as_it_is(escape):
    for text in (
        "SCL (reconstruction)",
        "NVIDIA H200",
        "CPU: AMD EPYC 7543 32-Core, AVX2",
        "not run: no source",
        "as config/paper.yaml, but 60 of 400 epochs; 0.1, anchors: 3",
    ):
        assert escape(text) == text
    assert escape_markdown("label_smooth in [0, 1], < 0.1 s, p < 0.001, a & b, +3.2 ± 0.5") == (
        "label_smooth in [0, 1], < 0.1 s, p < 0.001, a & b, +3.2 ± 0.5"
    )


def test_printable_is_the_same_done_twice_and_keeps_what_it_is_told():
    for text in HOSTILE + FURTHER:
        assert printable(printable(text)) == printable(text)
    assert printable("a\nb\x1b[1m", keep="\n") == "a\nb\\x1b[1m"


# ---- the report -------------------------------------------------------------------------------------------


def study_with(folder, text):
    """A study with `text` in every string field that reaches an output, otherwise the same."""
    fields = {"methods": {
        "pixels": block(f"A{text}", METHODS["pixels"].method, origin=text),
        "simclr": block(text, METHODS["simclr"].method, origin=f"official: {text}"),
        "scan": block(f"C{text}", METHODS["scan"].method, after="simclr"),
        "pica": block(f"D{text}", METHODS["pica"].method),
        "scl": block(f"{text}E", METHODS["scl"].method),
    }}  # fmt: skip

    class Told(Study):
        def images_note(self, name):
            return text

        def note(self, stage, name):
            return text

    study = Told(
        folder / "name",
        title=text,
        seeds=(0, 1),
        **fields,
        skipped={"imagenet10": text},
        benchmarks={name: benchmark(dataset=name) for name in ("cifar10", "imagenet10")},
    )
    for number, run in enumerate(run for run in study.runs() if run.benchmark != "imagenet10"):
        finish(
            run,
            commit=text if number % 2 else "0123456789",
            device=text,
            precision=text,
            images_sha256=text,
            versions={"torch": text, "pillow": text},
            counts={text: 3, "b": text},
            dirty=True,
            method=text,
            method_source=text,
            attempts=[{"commit": text, "device": text, "precision": "y", "started": text}],
        )
    change(study.run("cifar10", "joint", "pixels", 0), "metrics.json", reason=text)
    failed = study.run("cifar10", "joint", "pica", 1)
    (failed.directory / "record.json").unlink()
    fail(failed, text, kind=text, term=text, epoch=3)
    return study


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """{text: {file name: content}} for an ordinary text and hostile ones, one study each."""
    folder = tmp_path_factory.mktemp("studies")
    texts = ["ordinary", *HOSTILE]
    return {text: texts_of(study_with(folder / str(i), text), page=True) for i, text in enumerate(texts)}


def compared(reports, name, outline):
    expected = outline(reports["ordinary"][name])
    assert expected
    for text, files in reports.items():
        assert not odd(files[name]), text
        assert outline(files[name]) == expected, text


ALLOWED = {
    "begin",
    "end",
    "centering",
    "small",
    "caption",
    "toprule",
    "midrule",
    "bottomrule",
    "par",
    "footnotesize",
    "pm",
    "dagger",
    "le",
    "textasciitilde",
    "textasciicircum",
    "textbackslash",
}


def latex_outline(text):
    """Lines by kind, with the cells of each row; fails for commands or special characters that we did not write."""
    found, depth = [], 0
    for line in text.splitlines():
        if line.startswith("%"):
            found.append("%")
            continue
        depth += len(re.findall(r"(?<!\\)\{", line)) - len(re.findall(r"(?<!\\)\}", line))
        commands = re.findall(r"\\([a-zA-Z]+)", line)
        assert set(commands) <= ALLOWED, line
        assert depth == 0 and not re.search(r"(?<!\\)[%#~]|(?<!\\)\^(?!\{)|(?<!\\)_", line), line
        assert not line.startswith(("[", "*")), line
        rule = next(
            (name for name in commands if name not in ("pm", "le", "dagger") and not name.startswith("text")), ""
        )
        cells = re.findall(r"(?<!\\)&", line)
        found.append((rule if line.startswith("\\") else "", len(cells), line.endswith(r" \\"), line == ""))
    return found


@pytest.mark.xdist_group("reports")
def test_latex_has_no_command_or_row_of_its_own(reports):
    compared(reports, "tables.tex", latex_outline)
    assert "\n% " in reports[HOSTILE[0]]["tables.tex"] and "\n\\input" not in reports[HOSTILE[0]]["tables.tex"]


def markdown_outline(text):
    """Lines by kind, with the cells of each row; fails for markup that we did not write."""
    found = []
    for line in text.splitlines():
        kind = re.match(r"- |#+ |\| |\|-|\*\*|", line)[0]
        inner = line[len(kind) :]
        if kind == "# ":
            inner = re.sub(r"\(study (`+) ?.*\1\)$", "", inner)
        if kind == "**":
            assert inner.endswith("**")
            inner = inner[:-2]
        inner = re.sub(r"\*\*(supported|contradicted|not decided|not run)\*\*", "", inner).replace("`reference:`", "")
        bare = re.sub(r"\\[!-/:-@\[-`{-~]", " ", inner)  # without escaped characters
        cells = len(re.findall(r"\|", bare)) if kind.startswith("|") else 0
        bare = bare.replace("|", "") if kind.startswith("|") else bare
        assert not re.search(r"[`*~$|\\]|<[A-Za-z/!?]|&(?!amp;|lt;)#?\w+;|\]\(|\]\[|\]:|\[\^|://|www\.", bare), line
        assert not re.search(r"(?<![^\W_])_|_(?![^\W_])", bare), line
        if kind in ("- ", "# ", "## "):
            assert not re.match(r"#+( |$)|>|[-+=]([-= ]|$)|\d+[.)]( |$)|\[", inner), line
        found.append((kind, cells))
    return found


@pytest.mark.parametrize("name", ["tables.md", "claims.md"])
@pytest.mark.xdist_group("reports")
def test_markdown_has_no_markup_or_line_of_its_own(reports, name):
    compared(reports, name, markdown_outline)


DRAWN = {"svg", "g", "defs", "clipPath", "path", "rect", "use", "text", "tspan"}


def html_outline(text):
    """Tags and attributes in order, without the contents of figures and human-readable text."""
    found = []
    figures = re.findall('<svg class="figure".*?</svg>', text, re.DOTALL)
    assert {tag for figure in figures for tag in re.findall(r"<([^\s/>]+)", figure)} <= DRAWN
    text = re.sub('<svg class="figure".*?</svg>', "", text, flags=re.DOTALL)
    parser = html.parser.HTMLParser(convert_charrefs=True)
    parser.handle_starttag = lambda tag, attributes: found.append(
        (tag, [n for n, _ in attributes], dict(attributes).get("class"))
    )
    parser.handle_endtag = lambda tag: found.append(tag)
    parser.handle_comment = lambda data: found.append("comment")
    parser.feed(text)
    return [
        tag for tag in found if tag not in (("td", [], None), ("td", ["class"], "word"))
    ]  # .word starts with a letter


@pytest.mark.xdist_group("reports")
def test_the_page_has_no_tag_of_its_own(reports):
    compared(reports, "index.html", html_outline)


def test_a_row_of_runs_csv_cannot_bring_its_own_tags(tmp_path, monkeypatch):
    study = study_with(tmp_path, "ordinary")
    texts_of(study, page=True)
    path = partial(study) / "runs.csv"
    path.write_text(path.read_text().replace(",done,", ",<b onclick=x>done,").replace("ordinary", "<span><b>"))
    monkeypatch.setattr(render, "write_figures", write_no_figures)
    write_report(study, partial(study))
    assert not re.search("<b[ >]", (partial(study) / "report" / "index.html").read_text())


@pytest.mark.parametrize("text", ["$\\frac{", "_hidden", "\x1b[31m\x00\n", "$a$ \\input"])
def test_figures_draw_a_title_as_it_is(tmp_path, text):
    study = study_with(tmp_path, text)
    collect(study, partial(study))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")  # missing from the font
        assert all(path.stat().st_size for path in write_report(study, partial(study)))


# ---- the terminal -----------------------------------------------------------------------------------------


@pytest.fixture
def real_study(tmp_path):
    """A function that writes a study whose titles, and its only run's error, are `text`; returns its configuration."""

    def make(text):
        mapping = {
            "results": str(tmp_path / "results"),
            "data": str(tmp_path / "data"),
            "seeds": 1,
            "title": text,
            "protocols": ["joint"],
            "benchmarks": {"digits": {}},
            "methods": {"random": {"method": "baselines.controls.Random", "title": text, "origin": text}},
        }
        path = tmp_path / "study.yaml"
        path.write_text(json.dumps(mapping))  # JSON is valid YAML, escapes included
        (run,) = load_study(path).runs()
        config = digest(complete(load_study(path).settings(run)))
        failure = {"error": text, "kind": text, "permanent": True, "config_sha256": config, "epoch": 3, "term": text}
        write(run, "failure.json", failure)
        return path, run

    return make


def test_status_and_plan_show_no_terminal_sequence(real_study, capsys):
    path, _ = real_study(" ".join(HOSTILE + FURTHER))
    for verb in ("plan", "status"):
        assert main([verb, str(path)]) == 0
        told = capsys.readouterr()
        assert not odd(told.out + told.err), verb
    assert told.out.splitlines()[-1].startswith("  digits  joint  random  seed 0  failed: ")


def test_status_shows_no_terminal_sequence_of_a_log(real_study, capsys):
    path, run = real_study("x")
    (run.directory / "failure.json").unlink()
    (run.directory / "checkpoint.pt").write_bytes(b"")
    log = load_study(path).results / "logs" / "digits" / "joint" / "random" / "seed0.log"
    log.parent.mkdir(parents=True)
    log.write_text("\x1b[31mepoch 3\x1b]0;x\x07")
    assert main(["status", str(path)]) == 0
    told = capsys.readouterr().out
    assert "epoch 3" in told and not odd(told)


def test_errors_show_no_terminal_sequence(tmp_path, capsys):
    for text in HOSTILE:
        study = {"results": "r", "benchmarks": {"digits": {}}, "methods": {"random": {"method": text}}, "seeds": 1}
        (tmp_path / "study.yaml").write_text(json.dumps(study))
        assert main(["plan", str(tmp_path / "study.yaml")]) == 2
        told = capsys.readouterr().err
        assert told.startswith("scl: error: methods.random.method: ") and not odd(told)
    assert in_one_line(OSError(28, "no \x1b[31mroom")) == "no \\x1b[31mroom"


def test_progress_shows_no_terminal_sequence(capsys, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        bar = ProgressBar("a\x1b[31m\nb", 3, unit="x")
        bar.update(3)
        bar.close()
    say("c\x1b[31m\nd")
    told = capsys.readouterr().err
    assert "\x1b[31m" not in told and "c\\x1b[31m\nd" in told and "a\\x1b[31m" in told


def test_what_is_escaped_is_what_the_files_hold():
    """The fields above are complete: a new text field of a row must be added to these tests."""
    known = {
        "benchmark",
        "protocol",
        "stage",
        "method",
        "status",
        "reason",
        "device",
        "precision",
        "commit",
        "torch",
        "packages",
        "config_sha256",
        "settings",
        "other_commits",
        "other_devices",
        "images_sha256",
        "counts",
        "finished",
    }
    assert {name for name, kind in COLUMNS.items() if kind == TEXT} == known
    assert yaml.safe_load(json.dumps(HOSTILE[0])) == HOSTILE[0]
