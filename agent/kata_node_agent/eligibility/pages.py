"""The page of each check: what it asks, how, and every reason it may give, with the remedy.

The one source of ``check --explain``, of ``docs/checks.md`` and of the remedies in a verdict.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """A stable name, what it means, and what to do about it (empty where there is nothing to do)."""

    name: str
    meaning: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One check, explained."""

    id: str
    question: str
    how: str
    reasons: tuple[Reason, ...]


COMMON = (
    Reason(
        "FactMissing",
        "What the check needs could not be read, or is not in the tree or snapshot; nothing is guessed.",
        "run the check on the node itself, as root; or record a new snapshot there",
    ),
    Reason("NotOnThisArchitecture", "The check does not concern this architecture."),
    Reason(
        "NotReached",
        "An earlier step of KVM failed or could not be made.",
        "see the checks of KVM before this one",
    ),
)


def all_pages() -> dict[str, Page]:
    """Every page by id, in the order in which checks are listed."""
    from kata_node_agent.eligibility.pages_cpu import PAGES as CPU
    from kata_node_agent.eligibility.pages_host import PAGES as HOST
    from kata_node_agent.eligibility.pages_kvm import PAGES as KVM

    return {page.id: page for page in (*KVM, *CPU, *HOST)}


def render(page: Page, requirement: str, *, width: int = 80) -> str:
    """A page for a terminal."""

    def wrap(text: str, indent: str = "") -> str:
        return textwrap.fill(
            text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )

    lines = [page.id, "", wrap(page.question), "", wrap(page.how), "", wrap(requirement), "", "Reasons:"]
    for reason in page.reasons:
        lines += ["", f"  {reason.name}", wrap(reason.meaning, "    ")]
        if reason.remedy:
            lines.append(wrap(f"Remedy: {reason.remedy}.", "    "))
    return "\n".join(lines)


def render_markdown(page: Page, requirement: str) -> str:
    """A page as its section of the documentation."""
    lines = [
        f"## {page.id}",
        "",
        page.question,
        "",
        page.how,
        "",
        requirement,
        "",
        "| reason | meaning | remedy |",
        "|---|---|---|",
    ]
    lines += [f"| `{reason.name}` | {reason.meaning} | {reason.remedy} |" for reason in page.reasons]
    return "\n".join(lines)
