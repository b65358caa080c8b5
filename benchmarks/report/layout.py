"""A table as data, and its three forms: Markdown, LaTeX, HTML. What is in it is decided in tables.py."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

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
    lines = [tuple(_escape_markdown(column) for column in table.columns)]
    lines += [tuple(_escape_markdown(cell.text) + _superscript(cell) for cell in row) for row in table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    notes = [f"- {note}" for note in _notes(table)]
    body = [f"**{table.caption}**", "", padded[0], rule, *padded[1:]]
    return "\n".join(body + ([""] + notes if notes else [])) + "\n"


def latex(table: Table) -> str:
    """A table for the booktabs package."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(_escape_latex, table.columns)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [_escape_latex(cell.text) + (f"$^{{{cell.marks}}}$" if cell.marks else "") for cell in row]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escape_latex(note)}" for note in _notes(table, plain=True)]
    return "\n".join(lines + [r"\end{table}"]) + "\n"


def to_html(table: Table) -> str:
    """A <figure> with caption, table and notes."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = []
    for name, *cells in table.rows:
        values = "".join(
            f"<td{' class=word' if cell.text[:1].isalpha() else ''}>{_html_cell(cell)}</td>" for cell in cells
        )
        body.append(f'<tr><th scope="row">{_html_cell(name)}</th>{values}</tr>')
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(table))
    return (
        f'<figure><figcaption>{html.escape(table.caption)}</figcaption>\n<div class="scroll"><table>\n'
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
    return html.escape(cell.text) + (f"<sup>{cell.marks}</sup>" if cell.marks else "")


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
