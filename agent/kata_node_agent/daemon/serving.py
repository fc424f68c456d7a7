"""What each health service says of itself at a moment: for kubelet's probes, and for whoever watches the agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.nri import NriGate
    from kata_node_agent.daemon.pulse import Pulses
    from kata_node_agent.kubelet.registrar import Registrar

# Our own endpoint must have answered within this time for `device-plugin` to be healthy; it is asked more often.
_PROBE_VALID_SECONDS = 10.0


def serving(
    node: NodeWatch, pulses: Pulses, registrar: Registrar, keeper: AccountKeeper, nri: NriGate
) -> dict[str, bool]:
    """Each health service, and whether it serves now."""
    fresh, view, account = node.fresh, node.view, keeper.account
    answered = time.monotonic() - registrar.answered_at < _PROBE_VALID_SECONDS
    return {
        # An agent that waits for kubelet is well; one whose own endpoint does not answer is not.
        "": fresh
        and pulses.all_beat
        and (answered or registrar.endpoint is None or not registrar.endpoint.settled),
        "eligibility": fresh and view is not None and view.verdict.verdict == "eligible",
        "device-plugin": answered and registrar.stream_open,
        "accounting": fresh and account.room.known and account.problem is None,
        "nri": nri.serving,
    }
