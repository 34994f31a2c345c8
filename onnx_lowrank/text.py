"""The one place where text of others (names, file names, exceptions) is made safe to show."""

from __future__ import annotations

import html
import re

# Letters and marks that show nothing: `str.isprintable` counts them as printable.
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
_HIDDEN = re.compile(rf"[{_INVISIBLE}\U000e0100-\U000e01ef]")

NAME_LENGTH = 300
SENTENCE_LENGTH = 2000


def printable(text: object, limit: int | None = SENTENCE_LENGTH) -> str:
    r"""Return one line of visible characters; all others become escapes such as ``\x1b``.

    Escaped are control characters (newlines, ESC, C1, NUL, DEL), what changes the direction of
    text, what has no width, separators but the space, lone surrogates, and code points without a
    character. A backslash stays as it is: the result is to be read, not to be parsed.

    Parameters
    ----------
    text : object
        Taken by its ``str``.
    limit : int, optional
        Of a longer result only the ends are given, and the number of characters of `text`.
    """
    whole = str(text)
    shown = whole
    if limit is not None and len(whole) > limit:
        half = limit // 2
        shown = f"{whole[:half]}…({len(whole):,} characters)…{whole[-half:]}"
    if shown.isprintable() and not _HIDDEN.search(shown):
        return shown
    return "".join(map(_visible, shown))


def printable_name(text: object) -> str:
    """Return `printable` text of a length that fits into a cell of a table or a sentence."""
    return printable(text, NAME_LENGTH)


def spreadsheet_cell(text: str) -> str:
    """Return visible text that a spreadsheet shows and does not compute: no formula, no command."""
    shown = printable(text, None)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def markdown_cell(text: str) -> str:
    """Return visible text for a cell of a table in Markdown: no markup, no HTML."""
    shown = html.escape(printable_name(text), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", shown)


def _visible(character: str) -> str:
    if character.isprintable() and not _HIDDEN.match(character):
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
