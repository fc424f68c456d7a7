"""Each problem that `status` can name is told of in docs/troubleshoot.md, and has its place in the order of harm."""

from __future__ import annotations

import re

from kata_node_agent.daemon.harm import CHECKS, ORDER
from tests.docs.commands import ROOT
from tests.docs.reasons import problem_reasons

PAGE = (ROOT / "docs" / "troubleshoot.md").read_text()


def told() -> set[str]:
    """What is in bold at the begin of an entry, or is a heading."""
    bold = re.findall(r"^\*\*(.*?)\*\*", PAGE, re.MULTILINE | re.DOTALL)
    return {word for text in bold for word in re.findall(r"`(\w+)`", text)} | set(
        re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    )


def test_each_problem_has_an_entry() -> None:
    reasons = problem_reasons()
    # So that a search that finds nothing is seen.
    assert {"LoopStuck", "LedgerUnavailable", "CertificateExpired", "KubeletWouldRefuse"} <= set(reasons)
    missing = {reason: file for reason, file in reasons.items() if reason not in told()}
    assert not missing


def test_each_problem_has_its_place_in_the_order_of_harm() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) - {CHECKS} == set(problem_reasons())
