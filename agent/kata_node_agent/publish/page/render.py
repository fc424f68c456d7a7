"""The page as a whole, and what a browser is told with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kata_node_agent.dataclass import dataclass
from kata_node_agent.publish.page import lists, state
from kata_node_agent.publish.page.markup import Markup, code, name, prose, section, tag, together, when
from kata_node_agent.publish.page.memory import memory
from kata_node_agent.publish.page.style import POLICY, STYLE
from kata_node_agent.publish.page.vms import vms
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kata_node_agent.pb import agent_pb2

CONTENT_TYPE = "text/html; charset=utf-8"
# Beside those that the listener gives to every answer.
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
# What the page offers to renew itself by, in seconds.
_OFFERED = (10, 60)
_LEAST_SECONDS, _MOST_SECONDS = 5, 3600
_COLOURS = {"eligible": "#177a34", "ineligible": "#b3261e", "unknown": "#875400"}
_SHAPES = {"eligible": "M4 8.5l3 3 5-7", "ineligible": "M4.5 4.5l7 7m0-7l-7 7", "unknown": "M8 4v5m0 2v1"}


@dataclass(frozen=True, slots=True)
class Content:
    """All that the page says.

    Attributes:
        node: the node's name.
        unix_seconds: when it was asked for.
        status: of the agent; ``None`` where its loop did not answer.
        verdict: the document of `check`; ``None`` before the first look.
        report: the document of `report`; ``None`` where the node cannot be read.
        sandboxes: the document of `sandboxes`, the same.
        followed: whether VMs are followed.
        decisions: the last ones, newest last; ``None`` where they cannot be read.
        unreadable: what could not be read, and why.
        refresh_seconds: after which the page asks for itself again; ``None``: never.
        metrics: whether the same listener serves /metrics.
    """

    node: str
    unix_seconds: float
    status: agent_pb2.Status | None = None
    verdict: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    sandboxes: Mapping[str, Any] | None = None
    followed: bool = True
    decisions: Sequence[agent_pb2.NotedDecision] | None = None
    unreadable: Sequence[str] = ()
    refresh_seconds: int | None = None
    metrics: bool = True


def refresh_seconds(query: str) -> int | None:
    """After how many seconds the page is to renew itself, by the query of its address: ``refresh=30``; else ``None``."""
    match = re.search(r"(?:^|&)refresh=([0-9]{1,4})(?:&|$)", query)
    return max(_LEAST_SECONDS, min(int(match[1]), _MOST_SECONDS)) if match else None


def render(content: Content) -> str:
    """The page, as text to be sent as UTF-8 with `HEADERS`. It never raises on what somebody else wrote."""
    status = content.status
    word = status.verdict if status is not None and status.verdict in state.WORDS else "unknown"
    page = tag("html", _head(content, word), tag("body", *_body(content)), lang="en")
    return f"<!DOCTYPE html>\n{page}"


def _head(content: Content, word: str) -> Markup:
    status = content.status
    count = len(status.problems) if status is not None else 0
    wrong = f", {count} problem{'s' if count != 1 else ''}" if count else ""
    node = printable(content.node, 80)
    refresh = content.refresh_seconds
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", f"{state.SIGNS[word]} {state.WORDS[word]}{wrong} – {node} – kata-node-agent"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=str(refresh)) if refresh is not None else None,
        tag("link", rel="icon", href=_icon(word)),
        # Not through `tag`: the browser compares its hash.
        Markup(f"<style>{STYLE}</style>\n"),
    )


def _icon(word: str) -> str:
    picture = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='4' "
        f"fill='{_COLOURS[word]}'/><path d='{_SHAPES[word]}' fill='none' stroke='#fff' stroke-width='2'/></svg>"
    )
    return f"data:image/svg+xml,{quote(picture)}"


def _body(content: Content) -> Iterator[Markup | None]:
    status = content.status
    yield _patterns()
    yield tag(
        "header",
        tag("h1", tag("span", "kata-node-agent on"), name(content.node)),
        tag("p", "as of ", when(content.unix_seconds), " UTC", class_="quiet"),
        _renewal(content.refresh_seconds),
    )
    yield tag("main", *_sections(content))
    yield tag(
        "footer",
        tag(
            "p",
            state.about(status, content.unix_seconds) if status is not None else None,
            " This page only reads; the same is said by ",
            *(code("kata-node-agent status"), ", ", code("report"), ", ", code("sandboxes")),
            *(" and ", code("ledger history"), "."),
            together(" For Prometheus: ", tag("a", "metrics", href="metrics"), ".")
            if content.metrics
            else None,
        ),
    )


def _sections(content: Content) -> Iterator[Markup | None]:
    status, now = content.status, content.unix_seconds
    yield state.verdict(status, now)
    yield state.problems(status)
    if content.unreadable:
        yield section("Could not be read", tag("ul", *(tag("li", prose(why)) for why in content.unreadable)))
    if status is not None:
        yield state.figures(status, content.sandboxes)
    side = tag(
        "div",
        state.slots(status) if status is not None else None,
        lists.checks(content.verdict),
        lists.changes(status, now) if status is not None else None,
        class_="side",
    )
    yield tag(
        "div",
        memory(status, content.report),
        side,
        vms(content.sandboxes, followed=content.followed),
        lists.decisions(content.decisions, now),
        class_="columns",
    )


def _renewal(chosen: int | None) -> Markup:
    """Links, not a script: the page renews itself only where somebody asked for it."""
    offered = [(None, "off", "./"), *((each, f"{each} s", f"?refresh={each}") for each in _OFFERED)]
    if chosen not in {None, *_OFFERED}:
        offered.append((chosen, f"{chosen} s", f"?refresh={chosen}"))
    links = [
        together(" ", tag("a", words, href=href, aria_current="true" if each == chosen else None))
        for each, words, href in offered
    ]
    return tag("nav", "renew itself:", *links, aria_label="How often the page renews itself")


def _patterns() -> Markup:
    """What fills the parts of bars, so that they differ without colour."""
    checks = [
        tag("rect", class_="b", width="8", height="8"),
        tag("path", class_="a", d="M0 0h4v4H0zM4 4h4v4H4z"),
    ]
    lines = [
        tag("rect", class_="c", width="8", height="8"),
        tag("path", class_="d", d="M-2 10L10-2M-2 2L2-2M6 10L10 6"),
    ]
    defs = tag("defs", _pattern("checked", *checks), _pattern("striped", *lines))
    return tag("svg", defs, class_="none", aria_hidden="true", focusable="false")


def _pattern(identity: str, *inside: Markup) -> Markup:
    return tag("pattern", *inside, id=identity, width="8", height="8", patternUnits="userSpaceOnUse")
