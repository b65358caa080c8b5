"""Numbers as text, and text escaped for Markdown, LaTeX, and HTML.

Names, devices and messages come from untrusted files: the escape functions keep them from becoming markup or another
line.
"""

from __future__ import annotations

import html
import re

import pandas as pd
from markupsafe import Markup

from scl.util.text import printable

LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "≤": r"$\le$", "†": r"$\dagger$",
})  # fmt: skip
MARKDOWN = re.compile(
    r"<(?=[A-Za-z/!?]|$)|&(?=#?\w+;|$)"  # tags, entities
    r"|[\\`*~$|]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # it has no meaning within a word
    r"|\](?=[(\[:]|$)|\[(?=\^)|^\["  # links, their definitions, footnotes, boxes to tick
    r"|:(?=//)|(?<=\bwww)\."  # GitHub turns these into links
    r"|^>|^#+(?=\s|$)|^[-+=](?=[\s=-]|$)|^\d+[.)](?=\s|$)"  # quotations, headings, lists, rules
)


def number(mean: float, sd: float = float("nan"), *, signed: bool = False) -> str:
    """'64.5 ± 1.2' from fractions; without ± for one seed; '–' for none. signed: a difference, such as '+3.2 ± 0.4'."""
    if pd.isna(mean):
        return "–"
    text = format(100 * mean, "+z.1f" if signed else "z.1f").replace("-", "−")  # z: no "-0.0"
    return text if pd.isna(sd) else f"{text} ± {100 * sd:.1f}"


def points(fraction: float) -> str:
    """'+3.2', '−0.4': a difference of scores in percentage points."""
    return number(fraction, signed=True)


def interval(low: float, high: float, *, signed: bool = True) -> str:
    """'+1.2 to +5.0' from fractions; '–' for none."""
    return "–" if pd.isna(low) else f"{_bound(low, signed)} to {_bound(high, signed)}"


def _bound(value: float, signed: bool) -> str:
    """With up to three decimals where one would show 0.0: readers check whether 0 is inside the interval."""
    decimals = next((n for n in (1, 2, 3) if abs(100 * value) >= 0.5 * 0.1**n), 1)
    return format(100 * value, f"{'+' * signed}z.{decimals}f").replace("-", "−")


def p_value(p: float) -> str:
    """'p = 0.032', 'p < 0.001'; with another digit near the significance level."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.4f}" if 0.0495 <= p < 0.0505 else f"p = {p:.3f}"


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
    """Plain text as code in Markdown, fenced by more backticks than it contains in a row."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def escape_latex(text) -> str:
    """Plain text for LaTeX. A [ or * at the start would be parsed as part of the preceding row end."""
    text = one_line(text)
    return ("{}" if text[:1] in ("[", "*") else "") + text.translate(LATEX)


def preformatted(text: str) -> Markup:
    """Text of several lines for <pre>, escaped; control characters are visible."""
    return Markup("{}").format(printable(text, keep="\n"))


def escape_html(text) -> str:
    """Plain text for HTML, in an element or an attribute."""
    return html.escape(one_line(text))
