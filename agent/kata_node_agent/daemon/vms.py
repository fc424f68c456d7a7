"""VMs as the account has them: those that run, with what is expected of them, and the one more that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Backing, Need
from kata_node_agent.capacity.usual import usual, usual_overhead_bytes, usual_vm_bytes
from kata_node_agent.daemon.memory import backing_of
from kata_node_agent.errors import ConfigError
from kata_node_agent.ledger.book import Vm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.memory import Reading
    from kata_node_agent.report.forecasts import Expected
    from kata_node_agent.sandboxes.model import Sandbox


class NextVm:
    """What one more VM takes, as the configuration, Kata's settings and what was observed have it.

    Attributes:
        handlers: Kata's settings for each handler.
        default_handler: that of a pod which names none; empty where that is not Kata's.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._backings: Mapping[str, Backing] = {}
        self._overheads: Mapping[str, int] = {}
        self.handlers: Mapping[str, VmSettings] = {}
        self.default_handler = ""

    def take(self, reading: Reading, running: Iterable[Vm]) -> None:
        """Takes what was read; VMs that run are believed before the settings."""
        self.handlers, self._overheads = reading.handlers, reading.overheads
        self.default_handler = reading.default_handler
        told = {
            name: backing_of(settings.memory_in)
            for name, settings in reading.handlers.items()
            if settings.runs_here
        }
        self._backings = {**told, **{vm.handler: vm.backing for vm in running if vm.handler}}

    @property
    def cost_of_one(self) -> Need:
        """A VM of the usual size."""
        vm_bytes = usual_vm_bytes(self._config().sandbox.vm_memory, self.handlers)
        return Need(vm_bytes, self.overhead_bytes, self.backing(""))

    @property
    def overhead_bytes(self) -> int:
        """Of the host's processes beside it."""
        return usual_overhead_bytes(self._config().sandbox.host_overhead, self._overheads)

    def backing(self, handler: str) -> Backing:
        """Where VMs of a handler have their memory: as those that run do, else as Kata's settings say."""
        backings = self._backings
        return backings[handler] if handler in backings else usual(backings) or Backing.ANONYMOUS

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        """What a VM takes: of the usual size for 0; of a pod with these limits for a handler; else of this size.

        Raises:
            ConfigError: no such handler.
        """
        if not handler:
            return replace(self.cost_of_one, vm_bytes=memory_bytes) if memory_bytes else self.cost_of_one
        if handler not in self.handlers:
            known = ", ".join(sorted(self.handlers)) or "none was found in the runtime's configuration"
            raise ConfigError(f"no Kata handler {handler}", hint=f"Kata's handlers: {known}")
        from kata_node_agent.capacity import pod
        from kata_node_agent.capacity.sizing import forecast

        container = pod.Container(name="", memory_limit_bytes=memory_bytes or None)
        becomes = forecast(self.handlers[handler], pod.Pod(containers=(container,)))
        return Need(becomes.final_bytes, self.overhead_bytes, self.backing(handler))


def vm_of(sandbox: Sandbox, expected: Expected | None = None) -> Vm:
    """A sandbox as the account has it, with what is expected of it."""
    backing = backing_of(sandbox.memory_location)
    vm = Vm(
        sandbox=sandbox.id,
        vm_bytes=sandbox.vm_memory_bytes,
        backing=backing,
        pod_uid=sandbox.pod_uid or "",
        pod=sandbox.pod or "",
        handler=sandbox.handler or "",
        forecast_bytes=expected.final_bytes if expected is not None else 0,
        pod_fixed_bytes=expected.pod_fixed_bytes if expected is not None else None,
        counted_bytes=expected.counted_bytes if expected is not None else None,
    )
    cost = sandbox.cost
    if cost is None:
        return vm
    # Huge pages are set aside in any case: they are not among the memory that is available.
    resident = cost.host_overhead_bytes if backing is Backing.HUGE else cost.resident_bytes
    return replace(
        vm,
        overhead_bytes=cost.host_overhead_bytes,
        resident_bytes=resident,
        guest_resident_bytes=cost.guest_bytes,
    )
