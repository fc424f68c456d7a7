"""A verdict for people and for node-problem-detector. Hostile host text does no harm."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_node_agent.eligibility import CheckResult, Verdict

WIDTH = 80
_WORDS = {"eligible": "eligible", "ineligible": "not eligible", "unknown": "could not tell"}
_COLORS = {"eligible": "green", "ineligible": "red", "unknown": "yellow"}


def as_text(verdict: Verdict) -> str:
    """The verdict for a terminal of 80 columns: what stands in the way first, each with its remedy."""
    word = click.style(_WORDS[verdict.verdict], fg=_COLORS[verdict.verdict], bold=True)
    warnings = sum(check.status == "warn" for check in verdict.checks)
    more = f"; {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    lines = [f"{word}: Kata VMs on this node, by profile {verdict.profile}{more}"]
    required = [check for check in verdict.checks if check.required]
    optional = [check for check in verdict.checks if not check.required]
    lines += _section("Fails, and is required:", _with(required, "fail"), "red")
    lines += _section("Could not be told, and is required:", _with(required, "unknown"), "yellow")
    lines += _section("Warnings:", _with(optional, "warn"), "yellow")
    lines += _section("Could not be told:", _with(optional, "unknown"), "blue")
    rest = [check for check in verdict.checks if check.status in {"pass", "skip"}]
    if rest:
        lines += ["", click.style("Holds:", bold=True)]
        lines += [line for check in rest for line in _short(check)]
    if any(check.status not in {"pass", "skip"} for check in verdict.checks):
        lines += ["", "More on a check: kata-node-agent check --explain ID"]
    return "\n".join(lines)


def as_npd(verdict: Verdict) -> str:
    """One line, reason first, as node-problem-detector cuts it (80 characters unless told otherwise)."""
    blocking = verdict.blocking
    if not blocking:
        return f"{_WORDS[verdict.verdict]} (profile {verdict.profile})"
    more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
    return printable(f"{blocking[0].reason}: {blocking[0].message}{more}")


def printable(text: str) -> str:
    """The text in one line, without characters that steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _with(checks: Iterable[CheckResult], status: str) -> list[CheckResult]:
    return [check for check in checks if check.status == status]


def _section(title: str, checks: list[CheckResult], color: str) -> Iterator[str]:
    if not checks:
        return
    yield ""
    yield click.style(title, bold=True)
    for check in checks:
        yield f"  {click.style(check.id, fg=color)}  {check.reason}"
        yield _fill(printable(check.message), "    ")
        if check.remedy:
            yield _fill(f"remedy: {check.remedy}", "    ", "      ")


def _short(check: CheckResult) -> Iterator[str]:
    mark = click.style("ok  ", fg="green") if check.status == "pass" else "--  "
    lines = textwrap.wrap(printable(check.message), WIDTH - 32, break_on_hyphens=False) or [""]
    yield f"  {mark}{check.id:<26}{lines[0]}"
    for line in lines[1:]:
        yield " " * 32 + line


def _fill(text: str, first: str, following: str | None = None) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=first if following is None else following,
        break_on_hyphens=False,
    )
