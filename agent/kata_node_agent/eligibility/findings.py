"""Short ways to say what a check found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.eligibility.model import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

# Stand on no page of their own, as any check may give them; documented once for all.
FACT_MISSING = "FactMissing"
NOT_APPLICABLE = "NotOnThisArchitecture"
NOT_REACHED = "NotReached"


def holds(reason: str, message: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """The check holds."""
    return Finding("holds", reason, message, evidence or {})


def fails(reason: str, message: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """The check does not hold."""
    return Finding("fails", reason, message, evidence or {})


def unknown(reason: str, message: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """The check could not be made."""
    return Finding("unknown", reason, message, evidence or {})


def missing(what: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """A fact is missing."""
    return Finding("unknown", FACT_MISSING, what, evidence or {})


def skip(reason: str, message: str, evidence: Mapping[str, Any] | None = None) -> Finding:
    """The check does not concern this node."""
    return Finding("skip", reason, message, evidence or {})


def only_x86(evidence: Mapping[str, Any] | None = None) -> Finding:
    """The check is about x86 processors, and this node has others."""
    return skip(NOT_APPLICABLE, "concerns x86 processors only", evidence)
