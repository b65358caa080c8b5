"""Words of messages: the nearest known name, values cut short, one line whatever is quoted."""

import difflib
import re
import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def did_you_mean(word, known) -> str:
    """' (did you mean ...?)', or the list of what is known."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else f"; known: {', '.join(map(str, known)) or 'none'}"


def shown(value) -> str:
    """`value` as Python writes it, cut short."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"


def one_line(text) -> str:
    """`text` with line breaks, terminal escapes and the like written as \\n, \\x1b, and URLs without user:secret@."""
    visible = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return re.sub(r"://[^/@ ]*@", "://...@", visible)
