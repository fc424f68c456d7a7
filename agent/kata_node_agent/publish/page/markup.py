"""HTML from small functions: what is a plain string is escaped, and only `tag` makes something that is not."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# No text of ours is longer; one of somebody else's may be anything.
_MAX_TEXT = 2000
_MAX_NAME = 120
_EMPTY = frozenset({"meta", "link", "rect", "line", "path"})
# A new line after these keeps the source readable, and a test's words short.
_BLOCKS = frozenset(
    [
        "html",
        "head",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "div",
        "p",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "details",
        "summary",
        "h1",
        "h2",
        "h3",
        "svg",
        "pattern",
        "meta",
        "link",
    ]
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def plain(text: str, limit: int = _MAX_TEXT) -> Markup:
    """Any text as HTML that shows it: one line without characters that steer the reader, and no longer than this."""
    return text if isinstance(text, Markup) else Markup(escape(printable(text, limit)))


def tag(element: str, /, *inside: str | None, **attributes: str | None) -> Markup:
    """An element; ``class_`` is ``class``, ``aria_label`` is ``aria-label``. What is ``None`` is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{plain(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "\n" if element in _BLOCKS else ""
    if element in _EMPTY:
        return Markup(f"<{element}{written}>{end}" if element in _BLOCKS else f"<{element}{written}/>")
    return Markup(f"<{element}{written}>{together(*inside)}</{element}>{end}")


def together(*parts: str | None) -> Markup:
    """One after the other."""
    return Markup("".join(plain(part) for part in parts if part is not None))


def name(text: str) -> Markup:
    """A name that somebody else gave: cut, and its direction of writing is its own."""
    return tag("bdi", plain(text, _MAX_NAME))


def prose(text: str) -> Markup:
    """A sentence; what stands in it between backticks is something to type."""
    parts = printable(text, _MAX_TEXT).split("`")
    if len(parts) % 2 == 0:
        return plain(text)
    return together(*(code(part) if at % 2 else part for at, part in enumerate(parts)))


def code(text: str) -> Markup:
    """A stable name of ours, or what to type; it may be broken after an underscore or a slash."""
    return tag("code", Markup(re.sub("([_/])", r"\1<wbr>", plain(text))))


def complaint(reason: str, message: str, remedy: str, *, kind: str, whose: Markup | None = None) -> Markup:
    """Something that a person should know of, in a list: its stable reason, what it is, what to do."""
    return tag(
        "li",
        tag("h3", reason, class_=kind),
        tag("p", whose, prose(message)),
        advice(remedy),
    )


def advice(remedy: str) -> Markup | None:
    """What to do; ``None`` where there is nothing to do."""
    return tag("p", tag("strong", "Remedy: "), prose(remedy)) if remedy else None


def section(title: str, *inside: str | None, class_: str | None = None, unseen: bool = False) -> Markup:
    """A part of the page, named by its heading; one that is unseen is there for who listens."""
    slug = "-".join(title.lower().split())
    heading = tag("h2", title, id=slug, class_="unseen" if unseen else None)
    return tag("section", heading, *inside, aria_labelledby=slug, class_=class_)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str | None]], *, numbers: int) -> Markup:
    """A table in a frame that can be moved sideways where it is wider than the window.

    Args:
        caption: says what it is.
        head: titles of the columns.
        rows: of cells; the first is the row's name, ``None`` is not known.
        numbers: how many columns at the right are amounts.
    """
    first = len(head) - numbers
    titles = [
        tag("th", title, scope="col", class_="n" if at >= first else None) for at, title in enumerate(head)
    ]
    lines = [
        tag(
            "tr",
            tag("th", row[0] if row[0] is not None else unknown(), scope="row"),
            *(
                tag("td", unknown() if cell is None else cell, class_="n" if at >= first else None)
                for at, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *titles)),
            tag("tbody", *lines),
        ),
        class_="scroll",
        # Who has no mouse moves it with the arrow keys.
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def unknown() -> Markup:
    """Stands where a figure would."""
    return tag("span", "not known", class_="quiet")


def when(unix_seconds: float, now: float | None = None) -> Markup:
    """A moment, in UTC: nodes and those who look at them are rarely in one time zone. Of today's the time is enough."""
    try:
        moment = datetime.fromtimestamp(unix_seconds, UTC)
        today = now is not None and moment.date() == datetime.fromtimestamp(now, UTC).date()
    except (OverflowError, OSError, ValueError):
        return unknown()
    shown = f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"
    return tag("time", shown, datetime=f"{moment:%Y-%m-%dT%H:%M:%SZ}")


def bar(parts: Iterable[tuple[str, float]], whole: float, mark: float | None = None) -> Markup:
    """Amounts side by side in one bar. A picture only: what it shows stands in words beside it.

    Args:
        parts: class and amount of each, from the left.
        whole: what the full width stands for; above 0.
        mark: an amount, from the left, at which a line stands.
    """
    at, drawn = 0.0, []
    for kind, amount in parts:
        wide = max(0.0, min(amount / whole, 1.0 - at))
        if wide > 0:
            drawn.append(tag("rect", class_=kind, x=_percent(at), width=_percent(wide), height="100%"))
        at += wide
    if mark is not None and 0 <= mark <= whole:
        where = _percent(mark / whole)
        # The line has an edge, or it could not be seen on every part.
        drawn += [
            tag("line", class_=kind, x1=where, x2=where, y1="0", y2="100%") for kind in ("edge", "mark")
        ]
    return tag("svg", *drawn, class_="bar", aria_hidden="true", focusable="false")


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"
