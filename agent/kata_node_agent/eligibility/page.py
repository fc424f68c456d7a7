"""What a page about a check is made of."""

from __future__ import annotations

from kata_node_agent.dataclass import dataclass


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
