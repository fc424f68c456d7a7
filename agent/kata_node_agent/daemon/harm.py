"""What is worst, first: the order in which `status`, the page and the metrics name problems. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.daemon.node import Problem

# Stands for the reasons of the checks, of which there are many: the node may run no VM.
CHECKS = "(checks)"
ORDER = (
    # What runs may be killed.
    "MemoryOvercommitted",
    "MemoryPressure",
    "ResourceTaken",
    # The agent does not see, or cannot act: no new VM comes, or nobody counts it.
    "LoopStuck",
    "LedgerUnavailable",
    "MemoryUnreadable",
    "SandboxesStuck",
    "SandboxesUnreadable",
    "ForeignPidNamespace",
    CHECKS,
    "NotRegistered",
    "KubeletAbsent",
    # Numbers are wrong: too much is placed here, or refused late.
    "PodFixedTooLow",
    "KubeletConfigurationInvalid",
    "NriNotConnected",
    "LedgerSetAside",
    "SandboxesNotFollowed",
    "PlacesTakenWithoutDevice",
    # The next start will fail, or be another one.
    "KubeletWouldRefuse",
    "ReloadFailed",
    "RestartNeeded",
    "KubeletOverrides",
    # Others read nothing, or something old.
    "CertificateExpired",
    "CertificateUnusable",
    "SocketUnusable",
    "SocketPathTooLong",
    "AlreadyRunning",
    "FeatureFileUnusable",
    "CertificateExpires",
    "HistoryNotKept",
)
_RANK = {reason: rank for rank, reason in enumerate(ORDER)}


def worst_first(problems: Iterable[Problem]) -> list[Problem]:
    """All of them; those of one rank stay as they were. A reason that is not in `ORDER` is a check's."""
    return sorted(problems, key=lambda problem: _RANK.get(problem.reason, _RANK[CHECKS]))
