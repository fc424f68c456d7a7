"""Whether kubelet shows our devices, or what another plugin of the same resource put in their place. Decides; asks nobody.

Kubelet takes the list of whichever plugin spoke last, and tells the others nothing. When that plugin leaves, kubelet up to
1.36 marks every device unhealthy and calls our endpoint stopped; kubelet 1.37 goes on to show devices that are nobody's. Our
own stream stays open all the while, so only kubelet's answer to GetAllocatableResources tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import device_id
from kata_node_agent.dataclass import dataclass
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection

# Just after a registration kubelet may not have taken in the list yet.
SETTLING_SECONDS = 5.0
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Sight:
    """Kubelet's answer beside our own list, at one moment.

    Attributes:
        shown: the ids that kubelet would allocate; ``None`` is no answer.
        healthy: what we have told kubelet is healthy.
        listed: all that we have told kubelet of.
        generation: of our list.
        registration: which of our registrations it is.
        registered_seconds: for how long that registration has held.
    """

    shown: frozenset[str] | None
    healthy: frozenset[int]
    listed: frozenset[int]
    generation: int
    registration: int
    registered_seconds: float


def taken_over(first: Sight, second: Sight) -> str:
    """Why another plugin must have had our resource, by two sights in a row; empty where nothing says so.

    What kubelet would allocate is exactly what we have told it is healthy, or somebody else has spoken since. One sight alone
    may have met a list on its way; so may two, if our list or our registration changed between them.
    """
    if (first.generation, first.registration) != (second.generation, second.registration):
        return ""
    if first.registered_seconds < SETTLING_SECONDS:
        return ""
    return _difference(second) if _difference(first) else ""


def _difference(sight: Sight) -> str:
    if sight.shown is None:
        return ""
    healthy, listed = ({device_id(index) for index in part} for part in (sight.healthy, sight.listed))
    after = "as after another plugin for our resource"
    for ids, what in (
        (sight.shown - listed, "kubelet shows devices of another plugin for our resource"),
        (healthy - sight.shown, f"kubelet does not show our devices, {after}"),
        (sight.shown - healthy, f"kubelet calls devices healthy that we do not, {after}"),
    ):
        if ids:
            return f"{what}: {_few(ids)}"
    return ""


def _few(ids: Collection[str]) -> str:
    first, *others = sorted(ids)
    shown = printable(first, _SHOWN)
    return f"{shown} and {len(others)} more" if others else shown
