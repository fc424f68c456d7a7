"""Facts and a profile in, a verdict out. Pure, and safe on any thread."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kata_node_agent.eligibility.model import CheckResult, Finding, Status, Verdict, VerdictWord
from kata_node_agent.eligibility.pages import COMMON, all_pages
from kata_node_agent.eligibility.processor import see_processor
from kata_node_agent.eligibility.profiles import CHECKS, required_checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kata_node_agent.host.facts import NodeFacts


def default_profile(facts: NodeFacts) -> str:
    """``openshift`` on RHCOS, else ``upstream``."""
    return "openshift" if facts.os is not None and facts.os.family == "rhcos" else "upstream"


def evaluate(
    facts: NodeFacts, *, profile: str | None, require: Sequence[str] = (), waive: Sequence[str] = ()
) -> Verdict:
    """Judges a node.

    Args:
        facts: what is known of it.
        profile: name of a profile; ``None`` chooses by the operating system.
        require: ids of checks that decide beyond the profile's.
        waive: ids of checks that do not decide.

    Raises:
        ConfigError: a name that does not exist, or one that is both required and waived.
    """
    chosen = profile if profile is not None else default_profile(facts)
    required = required_checks(chosen, require, waive)
    cpu = see_processor(facts)
    results = tuple(_result(name, check(facts, cpu), name in required) for name, check in CHECKS.items())
    return Verdict(_verdict(results), chosen, results)


def _result(name: str, finding: Finding, required: bool) -> CheckResult:
    statuses: dict[str, Status] = {
        "holds": "pass",
        "fails": "fail" if required else "warn",
        "unknown": "unknown",
        "skip": "skip",
    }
    return CheckResult(
        id=name,
        status=statuses[finding.outcome],
        required=required,
        reason=finding.reason,
        message=finding.message,
        evidence=finding.evidence,
        remedy=_remedies().get((name, finding.reason), "") if finding.outcome in {"fails", "unknown"} else "",
    )


def _verdict(results: Iterable[CheckResult]) -> VerdictWord:
    """Ineligible if a required check fails, else unknown if one is unknown, else eligible."""
    statuses = {result.status for result in results if result.required}
    if "fail" in statuses:
        return "ineligible"
    return "unknown" if "unknown" in statuses else "eligible"


@cache
def _remedies() -> dict[tuple[str, str], str]:
    """The remedy by check and reason; a test sees to it that every reason has a page."""
    return {
        (page.id, reason.name): reason.remedy
        for page in all_pages().values()
        for reason in (*page.reasons, *COMMON)
    }
