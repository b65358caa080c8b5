"""A table as data, and its three forms: Markdown, LaTeX, HTML. What is in it is decided in tables.py.

Texts are plain until they are written out: names, devices and messages come from files that anybody may have made, and
`escape_markdown`, `escape_latex` and `escape_html` keep them from becoming markup or another line.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from scl.text import printable

SUPERSCRIPT = dict(zip("abcdef", "ᵃᵇᶜᵈᵉᶠ"))
LATEX = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "≤": r"$\le$",
}
MARKDOWN = re.compile(
    r"<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # tags, entities
    r"|[\\`*~$|]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it means nothing
    r"|\](?=[(\[:])|\[(?=\^)|^\["  # links, their definitions, footnotes, boxes to tick
    r"|:(?=//)|(?<=\bwww)\."  # which GitHub makes links of by itself
    r"|^>|^#+(?=\s|$)|^[-+=](?=[\s=-]|$)|^\d+[.)](?=\s|$)"  # quotations, headings, lists, rules
)


@dataclass(frozen=True)
class Text:
    """What a cell says, and the letters of its footnotes."""

    text: str
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, columns (the first is the name of the row), rows of as many texts, and notes below."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[Text, ...]]
    notes: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)  # letter -> what it means; only those in use

    def __post_init__(self):
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption


def markdown(table: Table) -> str:
    """GitHub Markdown, columns padded so that the source can be read as it stands."""
    lines = [tuple(escape_markdown(column) for column in table.columns)]
    lines += [tuple(escape_markdown(cell.text) + _superscript(cell) for cell in row) for row in table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    notes = [f"- {escape_markdown(note)}" for note in _notes(table)]
    body = [f"**{escape_markdown(table.caption)}**", "", padded[0], rule, *padded[1:]]
    return "\n".join(body + ([""] + notes if notes else [])) + "\n"


def latex(table: Table) -> str:
    """A table for the booktabs package."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, table.columns)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [escape_latex(cell.text) + (f"$^{{{cell.marks}}}$" if cell.marks else "") for cell in row]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escape_latex(note)}" for note in _notes(table, plain=True)]
    return "\n".join(lines + [r"\end{table}"]) + "\n"


def to_html(table: Table) -> str:
    """A <figure> with caption, table and notes."""
    head = "".join(f'<th scope="col">{escape_html(column)}</th>' for column in table.columns)
    body = []
    for name, *cells in table.rows:
        values = "".join(
            f"<td{' class=word' if cell.text[:1].isalpha() else ''}>{_html_cell(cell)}</td>" for cell in cells
        )
        body.append(f'<tr><th scope="row">{_html_cell(name)}</th>{values}</tr>')
    notes = "".join(f"<li>{escape_html(note)}</li>" for note in _notes(table))
    return (
        f'<figure><figcaption>{escape_html(table.caption)}</figcaption>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table></div>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + "</figure>"
    )


def _notes(table: Table, *, plain: bool = False) -> list[str]:
    marks = [
        f"{letter if plain else SUPERSCRIPT[letter]} {meaning}." for letter, meaning in table.marks.items()
    ]
    return marks + table.notes


def _superscript(cell: Text) -> str:
    return " " + "".join(SUPERSCRIPT[letter] for letter in cell.marks) if cell.marks else ""


def _html_cell(cell: Text) -> str:
    return escape_html(cell.text) + (f"<sup>{cell.marks}</sup>" if cell.marks else "")


def one_line(text) -> str:
    """`text` without line breaks and control characters."""
    return printable(" ".join(str(text).split()))


def escape_markdown(text) -> str:
    """Plain text for GitHub Markdown, in a line or in the cell of a table."""
    entities = {"<": "&lt;", "&": "&amp;"}
    return MARKDOWN.sub(lambda found: entities.get(found[0], f"{found[0][:-1]}\\{found[0][-1]}"), one_line(text))


def code(text) -> str:
    """Plain text as code in Markdown, between more backticks than it has in a row."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def escape_latex(text) -> str:
    """Plain text for LaTeX. A [ or * at the start would belong to the end of the row before it."""
    text = one_line(text)
    return ("{}" if text[:1] in ("[", "*") else "") + "".join(LATEX.get(character, character) for character in text)


def escape_html(text) -> str:
    """Plain text for HTML, in an element or an attribute."""
    return html.escape(one_line(text))
