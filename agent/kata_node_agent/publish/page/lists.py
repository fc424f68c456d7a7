"""Lists on the page: checks, what was decided, what became different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.page.markup import (
    Markup,
    advice,
    code,
    name,
    prose,
    section,
    tag,
    together,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_node_agent.pb import agent_pb2

LAST = 20
_ID_SHOWN = 12
# What a check's status is called, the sign before it, and its colour.
_CHECKS = {
    "pass": ("holds", "✓", "good"),
    "fail": ("fails", "✗", "bad"),
    "warn": ("warning", "⚠", "warn"),
    "unknown": ("not known", "?", "warn"),
    "skip": ("not asked", "–", "quiet"),
}


def checks(verdict: Mapping[str, Any] | None) -> Markup:
    """Those that do not hold, with their remedy; the others on demand."""
    if verdict is None:
        return section("Checks", tag("p", "No check has been made yet.", class_="quiet"))
    order = {"fail": 0, "unknown": 1, "warn": 2}
    found = verdict["checks"]
    hold = [check for check in found if check["status"] in {"pass", "skip"}]
    # What nobody requires, and nobody could tell, is no news.
    untold = [check for check in found if check["status"] == "unknown" and not check["required"]]
    wrong = [check for check in found if check not in hold and check not in untold]
    wrong.sort(key=lambda check: (not check["required"], order[check["status"]]))
    passed = sum(check["status"] == "pass" for check in found)
    return section(
        "Checks",
        tag("p", f"{passed} of {len(found)} hold", class_="quiet"),
        tag("ul", *map(_check, wrong), class_="list") if wrong else None,
        _folded(f"{len(untold)} not required, and not known", untold),
        _folded(f"{len(hold)} that hold or are not asked", hold),
    )


def _folded(title: str, found: Sequence[Mapping[str, Any]]) -> Markup | None:
    """A list on demand."""
    if not found:
        return None
    return tag("details", tag("summary", title), tag("ul", *map(_check, found), class_="list"))


def _check(check: Mapping[str, Any]) -> Markup:
    words, sign, kind = _CHECKS[check["status"]]
    if check["required"] and check["status"] in {"fail", "unknown"}:
        words += ", required"
    return tag(
        "li",
        tag("span", f"{sign} ", aria_hidden="true", class_=kind),
        code(check["id"]),
        " ",
        tag("span", words, class_=kind),
        tag("p", prose(check["message"])) if check["message"] else None,
        advice(check["remedy"]),
    )


def decisions(found: Sequence[agent_pb2.NotedDecision] | None, now: float) -> Markup:
    """What was asked for and answered, newest first."""
    title = "Last decisions"
    if found is None:
        return section(title, tag("p", "The ledger could not be read.", class_="quiet"))
    if not found:
        return section(title, tag("p", "Nothing was decided since the boot.", class_="quiet"))
    items = [_decision(noted, now) for noted in list(found)[: -LAST - 1 : -1]]
    return section(title, tag("ul", *items, class_="list decisions"))


def _decision(noted: agent_pb2.NotedDecision, now: float) -> Markup:
    decision = noted.decision
    whose = noted.pod or noted.sandbox[:_ID_SHOWN]
    message = together(": ", prose(decision.message)) if decision.message else None
    return tag(
        "li",
        *(when(noted.unix_seconds, now), " "),
        *(tag("span", noted.what), " "),
        *(_word(decision), " "),
        *(tag("span", name(whose) if whose else "–"), " "),
        tag("div", code(decision.reason), message, advice(decision.remedy)),
    )


def _word(decision: agent_pb2.Decision) -> Markup:
    if decision.would_refuse:
        return tag("span", "would refuse", class_="warn w")
    return tag("span", "yes", class_="good") if decision.allowed else tag("span", "refused", class_="bad")


def changes(status: agent_pb2.Status, now: float) -> Markup:
    """What became different, newest first."""
    title = "Last changes"
    found = list(status.history)[: -LAST - 1 : -1]
    if not found:
        return section(title, tag("p", "Nothing has changed since the agent started.", class_="quiet"))
    items = [
        tag(
            "li",
            when(change.unix_seconds, now),
            " ",
            tag("strong", change.what),
            tag("p", prose(change.message)),
        )
        for change in found
    ]
    return section(title, tag("ul", *items, class_="list"))
