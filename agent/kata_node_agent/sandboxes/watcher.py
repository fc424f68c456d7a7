"""Follows the sandboxes of a node: `sweep` is the truth, `glance` says cheaply whether it is time for one. Blocking."""

from __future__ import annotations

import math
import os
import time
from array import array
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError, describe_os_error
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroup_reader import GroupReader
from kata_node_agent.host.process_files import ProcessFiles, Source
from kata_node_agent.host.processes import shows_node
from kata_node_agent.sandboxes.blind import closed_error, namespace_error
from kata_node_agent.sandboxes.census import Census, Household, Member
from kata_node_agent.sandboxes.guest_ram import MIN_BYTES
from kata_node_agent.sandboxes.identity import read_pod_names
from kata_node_agent.sandboxes.places import Places
from kata_node_agent.sandboxes.size_files import SizeFiles
from kata_node_agent.sandboxes.vm import News, Vm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.sandboxes.model import Sandbox, Unbelieved

# A process that a glance finds new may still be its parent's image: it is looked at in the next ones, too.
_YOUNG_SECONDS = 2.0


class Watcher:
    """The sandboxes below one root. Not for several threads at once.

    Attributes:
        sandboxes: what the last sweep found, with the sizes that were told since.
        blind: what kept it from seeing all of them: each an error that says so, with its remedy.
        only_sizes: whether all that the last glance has found are other sizes: `resize` says them without a sweep.
    """

    def __init__(
        self,
        root: HostRoot,
        refresh_seconds: float = 300,
        *,
        cost_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads nothing yet.

        Args:
            root: of the host.
            refresh_seconds: after so long a sandbox's cost is read again, even if nothing seems to have changed.
            cost_seconds: a sweep that has taken so long reads the cost of no more sandboxes; their sizes are read in any
                case. The next one goes on with those that were left.
            clock: monotonic seconds.
        """
        self._root = root
        self._refresh_seconds = refresh_seconds
        self._cost_seconds = cost_seconds
        self._clock = clock
        self._census = Census(root)
        self._vms: dict[str, Vm] = {}
        # Shims without a VMM, and how large they were when they were found to run no guest themselves.
        self._empty_shims: dict[int, int] = {}
        self._young: dict[int, float] = {}
        self._seen: set[int] = set()
        self._places: Places | None = None
        self._places_at = float("-inf")
        self.sandboxes: tuple[Sandbox, ...] = ()
        self.blind: tuple[HostError, ...] = ()
        self._shows_node: bool | None = None
        self.only_sizes = False
        # What a glance looks at: the VMs in an order, their numbers, and how large each address space was.
        self._order: list[Vm] = []
        self._who: list[tuple[int, int]] = []
        self._sizes = SizeFiles()
        self._virtual = array("Q")
        self._resizable: list[int] = []
        self._grown: set[int] = set()
        self._owing = False

    @property
    def unbelieved(self) -> tuple[Unbelieved, ...]:
        """Claims without evidence, as the last sweep found them; a hundred at most."""
        return self._census.unbelieved

    @property
    def sees_all(self) -> bool:
        """Whether there was no process that may belong to a VM and that we lack the right to look into."""
        return not self._census.closed

    @property
    def follows_any(self) -> bool:
        """Whether there is a VM whose size a glance would look at."""
        return bool(self._vms)

    def sweep(self) -> tuple[Sandbox, ...]:
        """Looks at every process, and at what has changed of every sandbox.

        Returns:
            The sandboxes, by id. One that has not changed is the same object as before.

        Raises:
            HostError: /proc cannot be read.
        """
        now = self._clock()
        try:
            with ProcessFiles(self._root) as files:
                households = self._census.look(files)
                places = self._find_places(now)
                vms = self._vms_of(files, households, now)
                found: list[Sandbox] = []
                # Whose cost is the oldest comes first, so that a sweep that may not read all leaves nobody out for long.
                for sandbox_id in sorted(vms, key=lambda name: (vms[name].read_at, name)):
                    sandbox = vms[sandbox_id].look(
                        files,
                        households[sandbox_id],
                        places,
                        now,
                        self._refresh_seconds,
                        may_read=self._clock() - now <= self._cost_seconds,
                    )
                    # One without guest RAM yet is followed, so that a glance sees it come.
                    if sandbox is not None:
                        found.append(sandbox)
                present = set(files.pids())
                # At the first sweep all are new; those that may be before their exec are children of shims.
                new = present - self._seen if self._seen else self._census.members & present
                self._young = dict.fromkeys(new, now)
                self._seen = present
                self._empty_shims = {pid: size for pid, size in self._empty_shims.items() if pid in present}
        except OSError as error:
            raise HostError(
                f"{self._root.resolve('/proc')}: {describe_os_error(error)}",
                hint="sandboxes are seen in /proc of the host: see whether host_root is right",
            ) from error
        self._find_blind()
        self._vms = vms
        self._order = list(vms.values())
        self._who = [(vm.vmm.pid, vm.vmm.stat.started) for vm in self._order]
        self._virtual = array("Q")
        self._find_resizable()
        self._grown = set()
        self._owing = any(vm.owes for vm in self._order)
        self.sandboxes = tuple(sorted(found, key=lambda sandbox: sandbox.id))
        return self.sandboxes

    def glance(self, *, processes: bool = True) -> bool:
        """Whether a sandbox has appeared or vanished, a VM has another size, or its cost is owed, since the last sweep.

        Costs one listing of /proc and one small file of each VMM. What it misses (a process of a new sandbox under a reused
        number, say) the next sweep finds.

        Args:
            processes: also what has appeared; without, only the VMs that are known, and no listing.
        """
        self.only_sizes = False
        try:
            with ProcessFiles(self._root) as files:
                present = set(files.pids()) if processes else None
                if present is not None and (
                    self._is_gone(present) or self._is_new(files, present) or self._census.links_changed()
                ):
                    return True
                news = self._look_at_sizes(files)
        except OSError:
            return True
        self.only_sizes = news is News.SIZE and not self._owing
        return news is not News.NONE or self._owing

    def resize(self) -> tuple[Sandbox, ...]:
        """The sandboxes of the last sweep, each with the size that the last glance found."""
        self._grown = set()
        now = {sandbox.id: sandbox for vm in self._order if (sandbox := vm.resized()) is not None}
        self.sandboxes = tuple(now.get(sandbox.id, sandbox) for sandbox in self.sandboxes)
        return self.sandboxes

    def _find_blind(self) -> None:
        closed = self._census.closed
        if not self._shows_node:
            self._shows_node = shows_node(self._root)
        self.blind = (
            *((closed_error(closed, as_root=os.geteuid() == 0),) if closed else ()),
            *((namespace_error(),) if self._shows_node is False else ()),
        )

    def _find_resizable(self) -> None:
        self._resizable = [place for place, vm in enumerate(self._order) if vm.resizable]

    def _is_gone(self, present: set[int]) -> bool:
        return any(
            process.pid not in present for sandbox in self.sandboxes for process in sandbox.processes
        ) or any(vm.vmm.pid not in present for vm in self._vms.values())

    def _is_new(self, files: ProcessFiles, present: set[int]) -> bool:
        now = self._clock()
        for pid in present - self._seen:
            self._young.setdefault(pid, now)
        self._seen = present
        for pid in [
            pid for pid, since in self._young.items() if pid not in present or now - since > _YOUNG_SECONDS
        ]:
            del self._young[pid]
        claims = self._census.claims(files, self._young) if self._young else {}
        # A claim that is known and not believed is no news.
        return any(not self._census.is_member(pid, who) for pid, who in claims.items())

    def _look_at_sizes(self, files: ProcessFiles) -> News:
        sizes = self._sizes.read(files, self._who)
        virtual = sizes[::2]
        first = len(self._virtual) != len(virtual)
        if first or virtual != self._virtual:
            before = self._virtual
            places = [place for place, size in enumerate(virtual) if first or size != before[place]]
        else:
            places = []
        # One whose size was found to be another stays so until it is told.
        self._virtual = virtual
        news = News.NONE
        for place in {*places, *self._resizable, *self._grown}:
            vm = self._order[place]
            found = vm.glance(files, virtual[place])
            if found is News.NONE and vm.resizable and vm.resident_differs(sizes[2 * place + 1]):
                found = News.SWEEP
            if found is not News.NONE:
                self._grown.add(place)
            news = max(news, found, key=lambda each: each.value)
        if places:
            self._find_resizable()
        return news

    def _vms_of(self, files: ProcessFiles, households: Mapping[str, Household], now: float) -> dict[str, Vm]:
        found = ((name, self._vm_of(files, household, now)) for name, household in households.items())
        return {name: vm for name, vm in found if vm is not None}

    def _vm_of(self, files: ProcessFiles, household: Household, now: float) -> Vm | None:
        vmm = household.vmms[0] if household.vmms else self._dragonball(files, household)
        if vmm is None:
            return None
        known = self._vms.get(household.id)
        return known if known is not None and known.vmm is vmm else Vm(self._root, household.id, vmm, now)

    def _dragonball(self, files: ProcessFiles, household: Household) -> Member | None:
        """The shim that runs the guest itself: it maps vCPUs."""
        known = self._vms.get(household.id)
        for shim in household.shims:
            if known is not None and known.vmm is shim:
                return shim
            if self._empty_shims.get(shim.pid) == shim.stat.virtual_bytes:
                continue
            memory = files.memory(shim.pid, Source.MAPS, MIN_BYTES)
            if memory is not None and memory.vcpus:
                self._empty_shims.pop(shim.pid, None)
                return shim
            self._empty_shims[shim.pid] = shim.stat.virtual_bytes
        return None

    def _find_places(self, now: float) -> Places:
        """Where groups are mounted, found again at each refresh; the pods' names, read while one of them is not known."""
        if self._places is None or now - self._places_at >= self._refresh_seconds:
            mounts = find_cgroup_mounts(self._root)
            self._places = Places(self._root, mounts, GroupReader(self._root, mounts), {})
            self._places_at = now
        nameless = any(sandbox.pod is None and sandbox.pod_uid for sandbox in self.sandboxes)
        if nameless or not self._places.pod_names:
            places = self._places
            self._places = Places(places.root, places.mounts, places.groups, read_pod_names(self._root))
        return self._places
