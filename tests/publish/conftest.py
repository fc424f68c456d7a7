"""Nodes as the judge leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.eligibility import CheckResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.eligibility.model import Status, VerdictWord


@pytest.fixture
def judged() -> Callable[..., Verdict]:
    """Makes a verdict: ``judged("ineligible", ("kvm.device", "KvmDeviceMissing"), profile="openshift")``."""

    def judge(word: VerdictWord, *blocking: tuple[str, str], profile: str = "openshift") -> Verdict:
        status: Status = "unknown" if word == "unknown" else "fail"
        checks = [
            CheckResult(name, status, True, reason, "a message", {}, "a remedy") for name, reason in blocking
        ]
        return Verdict(word, profile, tuple(checks))

    return judge
