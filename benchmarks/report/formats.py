"""Numbers as text, and text as Markdown, LaTeX or HTML.

Names, devices and messages come from files that anybody may have made: the escape functions keep them from becoming
markup or another line.
"""

from __future__ import annotations

import html
import re

import pandas as pd

from scl.util.text import printable

LATEX = {
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "≤": r"$\le$",
}  # fmt: skip
MARKDOWN = re.compile(
    r"<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # tags, entities
    r"|[\\`*~$|]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it means nothing
    r"|\](?=[(\[:])|\[(?=\^)|^\["  # links, their definitions, footnotes, boxes to tick
    r"|:(?=//)|(?<=\bwww)\."  # which GitHub makes links of by itself
    r"|^>|^#+(?=\s|$)|^[-+=](?=[\s=-]|$)|^\d+[.)](?=\s|$)"  # quotations, headings, lists, rules
)


def number(mean: float, sd: float = float("nan"), *, signed: bool = False) -> str:
    """'64.5 ± 1.2' from fractions; without ± for one seed; '–' for none."""
    if pd.isna(mean):
        return "–"
    text = points(mean) if signed else f"{100 * mean:.1f}".replace("-", "−")
    return text if pd.isna(sd) else f"{text} ± {100 * sd:.1f}"


def points(fraction: float) -> str:
    """'+3.2', '−0.4': a difference of scores in points (hundredths)."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """'p = 0.032', 'p < 0.001'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def memory(megabytes: float) -> str:
    """MB (10^6 bytes) or GB; '–' for none."""
    if pd.isna(megabytes):
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


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
