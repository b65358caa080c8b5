"""Text from files and servers, made fit to be shown."""


def printable(text, *, keep: str = "") -> str:
    """`text` with every character that is not printable (control characters, line breaks, changes of direction,
    surrogates) written as its escape, such as \\x1b or \\n. keep: characters left as they are.

    For a terminal: an escape sequence in a record or an error message would otherwise be obeyed.
    """
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )
