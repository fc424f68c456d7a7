"""`python -m bench`: runs topics, tells on stderr how far it is, and ends in one table on stdout."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.model import Row, Scale
from bench.plugins import short_folder, warm_up
from bench.table import render, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

# name -> what it measures; each is a module here with `measure`.
TOPICS = {
    "registration": "kubelet.sock appears → Register called, idle and under load",
    "start": "process start → registered",
    "allocate": "Allocate, beside an empty handler",
    "admission": "a durable admission over the API with 500 sandboxes, beside an empty call",
    "free": "free memory worked out anew with 500 sandboxes and 250 other pods",
    "memory": "resident memory after 1,000 allocations",
    "idle": "CPU time when nothing happens",
    "check": "`check` as a process, beside virt-host-validate",
    "kubelet": "the real kubelet: its socket → registered, start → allocatable, health; only with CONFORMANCE_BIN",
    "collection": "one collection of a node with 250 pods, beside psutil alone; scale and growth",
    "nri": "answers to the container runtime, its restart, and a budget that holds",
    "daemon": "the whole agent beside 500 sandboxes: its memory, CPU at rest, and admissions while it sweeps",
    "hotplug": "a real QEMU gets memory by QMP → the account has it, kubelet has fewer devices",
    "sandboxes": "following 500 sandboxes, beside psutil; hotplug → told; scale; memory",
    "package": "the packaged agent beside this environment's: start, memory; only with PACKAGE_TREE",
    "page": "the page for people with 500 VMs, beside a scrape",
    "scrape": "a scrape of 200 sandboxes, beside the library's own writer; memory of a scraped agent",
    "probes": "the probes in process, CPUID, growth",
}


@click.command(
    "bench",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nTopics:\n" + "\n".join(f"  {name:14}{what}" for name, what in TOPICS.items()),
)
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(TOPICS)))
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write all numbers.",
)
@click.option("--quick", is_flag=True, help="Fewer samples: a first look in a minute.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="Take N of everything, and watch for at most N seconds: to try the bench itself, not to measure.",
)
def main(names: tuple[str, ...], json_file: Path | None, quick: bool, samples: int | None) -> None:
    """Measure the agent, each figure beside a peer or a floor of the same run.

    Without NAME all topics run; that takes about four minutes. Progress goes to stderr, the table to stdout. Everything
    runs in a temporary folder over Unix sockets, with a development kubelet; nothing of the node is changed. A figure that
    is not reached is shown as NO, never an error.

    \b
    Ours and the other are measured in turn, so that both see the same machine; but numbers from a
    busy machine are those of the machine. A ratio says more than a time.
    """
    rows = asyncio.run(_measure(names or tuple(TOPICS), Scale(quick, samples)))
    click.echo(render(rows))
    if json_file is not None:
        json_file.write_text(json.dumps(to_json(rows), indent=1) + "\n")


async def _measure(names: tuple[str, ...], scale: Scale) -> list[Row]:
    # As Ctrl-C does: every block ends what it started.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rows: list[Row] = []
    with short_folder() as cache:
        with told("warming up"), short_folder() as folder:
            await warm_up(cache, folder)
        for name in names:
            with told(f"{name}: {TOPICS[name]}"), short_folder() as folder:
                rows += await importlib.import_module(f"bench.{name}").measure(scale, folder)
    return rows


@contextmanager
def told(what: str) -> Iterator[None]:
    """Says on stderr what is being done, and how long it took."""
    begin = time.monotonic()
    click.echo(f"{what} …", err=True, nl=False)
    try:
        yield
    finally:
        click.echo(f" {time.monotonic() - begin:.0f} s", err=True)


if __name__ == "__main__":
    try:
        main()
    except asyncio.CancelledError:
        sys.exit(143)
