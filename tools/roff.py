"""Text as man(7) wants it: what means something to the formatter is escaped, paragraphs and literal blocks are marked."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# click's mark in a docstring: this paragraph is to be kept line by line.
_LITERAL = "\b"
_WIDTH = 72


def escape(text: str) -> str:
    """One line of text. A hyphen is a hyphen to be copied, not one to be typeset; all else is ASCII in the end."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(char if char < "\x7f" else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def bold(text: str) -> str:
    """Words as they are typed."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """A word that stands for another."""
    return f"\\fI{escape(text)}\\fR"


def title(name: str, section: int, date: str, source: str, manual: str) -> str:
    """The first line of a page."""
    return f'.TH "{escape(name.upper())}" "{section}" "{date}" "{escape(source)}" "{escape(manual)}"'


def section(name: str, body: Iterable[str]) -> Iterator[str]:
    """A section with its heading; nothing where it would be empty."""
    lines = list(body)
    if lines:
        # The heading is a paragraph's begin by itself.
        yield from (f'.SH "{escape(name)}"', *(lines[1:] if lines[0] == ".PP" else lines))


def tagged(tag: str, text: str) -> Iterator[str]:
    """An item of a list: a tag that is formatted already, and plain text below it."""
    yield from (".TP", tag, *_lines(text))


def _lines(text: str) -> Iterator[str]:
    """Flowing text, in lines that a person can read in the source as well."""
    yield from map(escape, textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False))


def literal(text: str) -> Iterator[str]:
    """A block that keeps its lines."""
    lines = textwrap.dedent(text).strip("\n").splitlines()
    yield from (".PP", ".in +4n", ".EX", *(escape(line) for line in lines), ".EE", ".in")


def paragraph(text: str) -> Iterator[str]:
    """A paragraph of flowing text; one with click's mark keeps its lines."""
    if text.startswith(_LITERAL):
        yield from literal(text.removeprefix(_LITERAL))
    else:
        yield from (".PP", *_lines(text))


def split_help(text: str) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """A command's help in parts.

    Returns:
        The paragraphs, the examples (one block each), and what each exit code means.
    """
    paragraphs: list[str] = []
    examples: list[str] = []
    codes: list[tuple[str, str]] = []
    for part in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
        body = part.removeprefix(_LITERAL).lstrip("\n")
        head, _, rest = body.partition(":")
        match head.strip(), rest.startswith("\n"):
            case "Examples", True:
                examples.append(rest)
            case "Exit codes", _:
                codes += _exit_codes(rest)
            case _:
                paragraphs.append(part)
    return paragraphs, examples, codes


def _exit_codes(text: str) -> Iterator[tuple[str, str]]:
    """``0 shown; 2 no answer.`` or a line each; a line further in goes on with the one before."""
    if "\n" in text.strip("\n") and re.match(r"\s*\n\s+\d+\s", text):
        items = re.split(r"\n(?=\s*\d+\s)", text.strip("\n"))
    else:
        items = re.split(r";\s+", " ".join(text.split()))
    for item in items:
        code, _, meaning = item.strip().partition(" ")
        if code.isdigit():
            yield code, meaning.strip()
        elif code:
            yield "else", item.strip().removeprefix("else ").strip()
