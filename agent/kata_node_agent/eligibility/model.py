"""What a check finds, and what the judge makes of it. Values only."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

VERDICT_SCHEMA = "kata-node-agent/verdict/v1"

Status = Literal["pass", "fail", "warn", "skip", "unknown"]
VerdictWord = Literal["eligible", "ineligible", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check sees: it holds, does not hold, cannot be told, or does not concern this node (``skip``).

    ``reason`` stands on the check's page, with the remedy.
    """

    outcome: Literal["holds", "fails", "unknown", "skip"]
    reason: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding under a profile: what does not hold is ``fail`` where required, ``warn`` where not."""

    id: str
    status: Status
    required: bool
    reason: str
    message: str
    evidence: Mapping[str, Any]
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """The check as in the verdict's JSON."""
        return {
            "id": self.id,
            "status": self.status,
            "required": self.required,
            "reason": self.reason,
            "message": self.message,
            "evidence": dict(self.evidence),
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a node under a profile, with all checks in the order of the documentation."""

    verdict: VerdictWord
    profile: str
    checks: tuple[CheckResult, ...]

    @property
    def blocking(self) -> tuple[CheckResult, ...]:
        """The required checks that decide: those that fail, else those that could not be made."""
        wanted = {"ineligible": "fail", "unknown": "unknown"}.get(self.verdict)
        return tuple(check for check in self.checks if check.required and check.status == wanted)

    def to_json(self) -> dict[str, Any]:
        """The verdict as other programs read it."""
        return {
            "schema": VERDICT_SCHEMA,
            "verdict": self.verdict,
            "profile": self.profile,
            "checks": [check.to_json() for check in self.checks],
        }
