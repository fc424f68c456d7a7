import asyncio
import os

import pytest

from kata_node_agent.host.uevents import KernelEvent, kernel_events, parse_event


@pytest.mark.parametrize(
    ("event", "ours"),
    [
        (KernelEvent("add", "misc", "kvm"), True),
        (KernelEvent("remove", "misc", "kvm"), True),
        # KVM tells of every VM like this.
        (KernelEvent("change", "misc", "kvm"), False),
        (KernelEvent("add", "misc", "fuse"), False),
        (KernelEvent("add", "module", "kvm_intel"), True),
        (KernelEvent("add", "module", "ext4"), False),
        (KernelEvent("offline", "cpu", "cpu1"), True),
        (KernelEvent("online", "memory", "memory7"), True),
        (KernelEvent("change", "memory", "memory7"), False),
        (KernelEvent("add", "net", "veth0"), False),
    ],
)
def test_only_what_may_change_the_verdict_or_the_capacity_concerns_us(event: KernelEvent, ours: bool) -> None:
    assert event.concerns_us is ours


def test_an_event_is_read_from_the_kernels_fields() -> None:
    fields = {"ACTION": "add", "SUBSYSTEM": "misc", "DEVPATH": "/devices/virtual/misc/kvm", "SEQNUM": "1"}
    assert parse_event(fields) == KernelEvent("add", "misc", "kvm")


@pytest.mark.parametrize(
    "fields", [{}, {"ACTION": "add"}, {"ACTION": None, "SUBSYSTEM": "misc", "DEVPATH": "/x"}]
)
def test_an_event_that_lacks_its_fields_is_none(fields: dict[str, object]) -> None:
    assert parse_event(fields) is None


@pytest.mark.host
def test_events_of_the_real_kernel_arrive() -> None:
    path = "/sys/devices/system/cpu/cpu0/uevent"
    if not os.access(path, os.W_OK):
        pytest.skip(f"{path} may not be written: the kernel cannot be asked for an event")

    async def main() -> None:
        async def ask() -> None:
            while True:
                # A synthetic event: the kernel says it again, nothing happens.
                with open(path, "w") as stream:
                    stream.write("online")
                await asyncio.sleep(0.1)

        asking = asyncio.create_task(ask())
        async with asyncio.timeout(20):
            async for event in kernel_events():
                if event == KernelEvent("online", "cpu", "cpu0"):
                    break
        asking.cancel()

    asyncio.run(main())


@pytest.mark.host
def test_only_the_module_that_is_needed_is_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from kata_node_agent.host import uevents; uevents._load();"
        "print(sum(name.startswith('pyroute2.') for name in sys.modules), 'pyroute2.ndb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, ndb = done.stdout.split()
    assert ndb == "False"
    assert int(count) < 60
