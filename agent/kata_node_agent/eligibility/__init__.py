"""Pure: facts of a node and a profile in, a verdict out. Reads no file, asks no device, changes nothing."""

from kata_node_agent.eligibility.judge import default_profile, evaluate
from kata_node_agent.eligibility.model import CheckResult, Verdict
from kata_node_agent.eligibility.processor import confidential_abilities
from kata_node_agent.eligibility.profiles import PROFILES, check_policy

__all__ = [
    "PROFILES",
    "CheckResult",
    "Verdict",
    "check_policy",
    "confidential_abilities",
    "default_profile",
    "evaluate",
]
