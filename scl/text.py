"""Text from files, servers and users, made fit to be shown."""

import difflib
import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def printable(text, *, keep: str = "") -> str:
    """`text` with every character that is not printable (control characters, line breaks, changes of direction,
    surrogates) written as its escape, such as \\x1b or \\n. keep: characters left as they are.

    For a terminal: an escape sequence in a record or an error message would otherwise be obeyed.
    """
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )


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
