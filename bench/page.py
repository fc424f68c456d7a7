"""The page for people of a node with 500 VMs: how long it takes, beside a scrape, and what it leaves in memory."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

from bench.model import Row, Samples, median, ratio_of, spread
from bench.processes import agent_command, cpu_nanoseconds, memory_kib, running
from tests.daemon.recorded import RecordedNode
from tests.publish.test_metrics import free_address

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale
    from bench.processes import Child

_VMS = 500
_START_SECONDS = 60.0
# A page every ten seconds is 1 % of a core then.
_FIGURE_MS = 100.0
_FIGURE_MIB = 2.0


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for the time and one for the memory."""
    times: dict[str, list[float]] = {"/": [], "/metrics": []}
    cpu: dict[str, list[float]] = {path: [] for path in times}
    # To try the bench itself a few will do.
    vms = scale.count(_VMS, _VMS)
    address = free_address()
    node = RecordedNode(folder, address, vms=vms)
    command = agent_command("run", *node.arguments)
    with running(command, folder / "page.log") as agent:
        # Scrapes first, as a node is scraped before somebody looks: what both load is not the page's.
        _wait_for(address, agent, vms)
        for _ in range(scale.count(20, 5)):
            _get(address, "/metrics")
        before = memory_kib(agent.pid)["rss"]
        size = len(_get(address, "/"))
        first = memory_kib(agent.pid)["rss"]
        for _ in range(scale.count(50, 5)):
            for path, samples in times.items():
                began, used = time.perf_counter(), cpu_nanoseconds(agent.pid)
                _get(address, path)
                samples.append((time.perf_counter() - began) * 1e3)
                cpu[path].append((cpu_nanoseconds(agent.pid) - used) / 1e6)
        after = memory_kib(agent.pid)["rss"]
    ours, scrape = Samples.of(cpu["/"]), Samples.of(cpu["/metrics"])
    there = spread(Samples.of(times["/"]), "ms")
    grown = (max(first, after) - before) / 1024
    return [
        Row(
            id="page",
            what=f"CPU time of the page with {vms} VMs, {size / 1024:.0f} KiB; asked → there, p50 / p99",
            measured=f"{median(ours, 'ms')}; {there}",
            beside=f"a scrape: {median(scrape, 'ms')}",
            ratio=ratio_of(ours.p50, scrape.p50),
            figure=f"≤ {_FIGURE_MS:.0f} ms CPU",
            reached=ours.p50 <= _FIGURE_MS,
            values={"ours_cpu_ms": ours.to_json(), "scrape_cpu_ms": scrape.to_json(), "bytes": size},
        ),
        Row(
            id="page-memory",
            what="resident memory that the first pages add to an agent that is scraped",
            measured=f"{grown:.1f} MiB",
            beside="–",
            ratio=None,
            figure=f"≤ {_FIGURE_MIB:.0f} MiB",
            reached=grown <= _FIGURE_MIB,
            values={"before_kib": before, "first_kib": first, "after_kib": after},
        ),
    ]


def _wait_for(address: str, agent: Child, vms: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    words = f'kata_node_agent_sandboxes{{vmm="qemu"}} {vms}'
    while True:
        try:
            if words in _get(address, "/metrics").decode():
                return
        except OSError as error:
            if time.monotonic() > deadline or not agent.alive:
                raise RuntimeError(f"no agent: {error}: {agent.last_words()}") from error
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all VMs are seen: {agent.last_words()}")
        time.sleep(0.1)


def _get(address: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path}: {answer.status}: {body[:200]!r}")
        return body
    finally:
        connection.close()
