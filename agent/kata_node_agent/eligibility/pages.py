"""The page of each check: what it asks, how, and every reason it may give, with the remedy.

The one source of ``check --explain``, of ``docs/checks.md`` and of the remedies in a verdict.
"""

from __future__ import annotations

import textwrap

from kata_node_agent.eligibility.page import Page, Reason

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


_INTRODUCTION = """
<!-- Made from the pages of kata_node_agent.eligibility; a test compares. -->
# Checks

`kata-node-agent check` proves whether a node can run Kata VMs. It changes nothing on the node. Every
check has a status, a reason that stays the same over versions, evidence, and a remedy.

| status | meaning |
|---|---|
| `pass` | it holds |
| `fail` | it does not hold, and the profile requires it |
| `warn` | it does not hold, and the profile does not require it |
| `unknown` | it could not be made: a fact or a permission is missing |
| `skip` | it does not concern this node |

The verdict is *not eligible* (exit code 1) if a required check fails, else *could not tell* (2) if one is
unknown, else *eligible* (0). The profile is `openshift` on RHCOS and `upstream` elsewhere, unless
`--profile` says otherwise; `--require ID` and `--waive ID`, or `require` and `waive` under
`[eligibility]` in the configuration, change what decides. `kata-node-agent check --explain ID` prints the
section of a check.

node-problem-detector runs `kata-node-agent check --format npd`: one line, and these exit codes.
"""


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
    lines = [f"## {page.id}", "", page.question, "", page.how, "", requirement, "", *_table(page.reasons)]
    return "\n".join(lines)


def document() -> str:
    """All of ``docs/checks.md``."""
    from kata_node_agent.eligibility.profiles import CHECKS, describe_requirement

    pages = all_pages()
    sections = [render_markdown(pages[name], describe_requirement(name)) for name in CHECKS]
    common = "\n".join(["## Reasons of any check", "", *_table(COMMON)])
    return "\n\n".join([_INTRODUCTION.strip(), *sections, common]) + "\n"


def _table(reasons: tuple[Reason, ...]) -> list[str]:
    rows = [f"| `{reason.name}` | {reason.meaning} | {reason.remedy} |" for reason in reasons]
    return ["| reason | meaning | remedy |", "|---|---|---|", *rows]
