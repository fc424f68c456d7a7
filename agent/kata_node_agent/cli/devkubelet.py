"""`kata-node-agent devkubelet`: the development kubelet, and what one can tell it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.devkubelet.client import ControlClient
from kata_node_agent.devkubelet.names import SANDBOX_RESOURCE, Folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.devkubelet.events import Event

DEFAULT_DIR = "./.run"

_dir_option = click.option(
    "--dir",
    "folder",
    default=DEFAULT_DIR,
    show_default=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _ctx, _param, value: Folder(value.absolute()),
    help="Folder of the development kubelet.",
)
_namespace_option = click.option(
    "--namespace", default="default", show_default=True, metavar="NS", help="Of the pod."
)


@click.group("devkubelet", short_help="A small kubelet for newcomers and tests.")
def command() -> None:
    """A small kubelet: it takes device plugins and pods as the real one does, and runs nothing.

    \b
    In one terminal:   kata-node-agent dev              (starts this kubelet, and the agent)
    In another:        kata-node-agent devkubelet admit web
                       kata-node-agent devkubelet pods
                       kata-node-agent devkubelet restart
                       kata-node-agent devkubelet kill
                       kata-node-agent devkubelet serve (after a kill: start it again)

    A real node has its own kubelet; there the agent is started by `kata-node-agent run`.
    """


@command.command()
@_dir_option
@options.output_format
@click.option(
    "--socket-delay",
    type=click.FloatRange(0, 60),
    default=0.005,
    show_default=True,
    metavar="SECONDS",
    help="From the wiped directory to kubelet.sock.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0.1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Until a resource whose plugin is away is dropped.",
)
@click.option(
    "--pod-resources-empty",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the pod resources API says after a start that no pod holds anything.",
)
def serve(
    folder: Folder, output_format: str, socket_delay: float, grace: float, pod_resources_empty: float
) -> None:
    """Run the kubelet in the foreground until SIGTERM or Ctrl-C; prints what happens, one line each.

    At start it deletes every socket in DIR/device-plugins; when it ends its own stay, as a real one's do.
    What pods hold is kept in a checkpoint, over a kill too.

    \b
    kata-node-agent devkubelet serve
    kata-node-agent devkubelet serve --dir /tmp/kata --grace 5
    kata-node-agent devkubelet serve --format json | jq .event
    """
    folder.check()
    # gRPC's own lines would come between ours. Must stand before the library is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kata_node_agent.devkubelet.kubelet import Timing
    from kata_node_agent.lock import Lock

    timing = Timing(
        socket_delay_seconds=socket_delay,
        grace_seconds=grace,
        pod_resources_empty_seconds=pod_resources_empty,
    )
    as_line: Callable[[Event], str] = (
        (lambda event: json.dumps(event.to_json()))
        if output_format == "json"
        else (lambda event: event.line())
    )
    remedy = f"stop that one (kata-node-agent devkubelet kill --dir {folder.root}), or give another --dir"
    folder.make()
    with Lock(folder.lock, f"a development kubelet already runs in {folder.root}", hint=remedy):
        asyncio.run(_serve(folder, timing, lambda event: print(as_line(event), flush=True)))


async def _serve(folder: Folder, timing: Any, show: Callable[[Event], None]) -> None:
    from kata_node_agent.devkubelet.control import Control
    from kata_node_agent.devkubelet.kubelet import DevKubelet

    kubelet = DevKubelet(
        folder.device_plugins, pod_resources_socket=folder.pod_resources_socket, timing=timing
    )
    kubelet.log.listen(show)
    control = Control(kubelet, folder.control_socket)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, control.stop_asked.set)
    async with kubelet:
        await control.start()
        try:
            await control.stop_asked.wait()
        finally:
            await control.close()


@command.command()
@_dir_option
@options.output_format
def status(folder: Folder, output_format: str) -> None:
    """What the node shows of each resource, and which plugins are connected.

    \b
    kata-node-agent devkubelet status
    kata-node-agent devkubelet status --format json | jq '.resources[0].allocatable'
    """
    with ControlClient(folder) as client:
        answer = client.ask("status")
    if output_format == "json":
        _print_json(answer)
        return
    since = time.strftime("%H:%M:%S", time.localtime(answer["since_unix_seconds"]))
    click.echo(f"development kubelet: pid {answer['pid']}, since {since}, in {folder.root}")
    for entry in answer["resources"]:
        click.echo(
            f"{entry['resource']}: allocatable {entry['allocatable']} of capacity {entry['capacity']}, "
            f"in use {entry['in_use']}; plugin {', '.join(entry['endpoints']) or 'not connected'}"
        )
    if not answer["resources"]:
        click.echo("no resource: no plugin has registered")
    click.echo(f"pods: {answer['pods']}")


@command.command()
@_dir_option
@options.output_format
def pods(folder: Folder, output_format: str) -> None:
    """The pods, with the devices that they hold; failed ones too, with kubelet's message.

    \b
    kata-node-agent devkubelet pods
    kata-node-agent devkubelet pods --format json | jq -r '.pods[] | [.name, .phase] | @tsv'
    """
    with ControlClient(folder) as client:
        answer = client.ask("pods")
    if output_format == "json":
        _print_json(answer)
        return
    for pod in answer["pods"]:
        click.echo(_pod_line(pod))
    if not answer["pods"]:
        click.echo("no pods; admit one: kata-node-agent devkubelet admit NAME")


@command.command()
@click.argument("name")
@_dir_option
@options.output_format
@_namespace_option
@click.option(
    "--count", type=click.IntRange(0), default=1, show_default=True, help="Devices for each container."
)
@click.option(
    "--containers", type=click.IntRange(1, 100), default=1, show_default=True, help="Number of them."
)
@click.option(
    "--overhead",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Devices that the pod's RuntimeClass counts as overhead; none is allocated for these.",
)
@click.option("--resource", default=SANDBOX_RESOURCE, show_default=True, help="What the pod asks for.")
def admit(
    folder: Folder,
    output_format: str,
    *,
    name: str,
    namespace: str,
    count: int,
    containers: int,
    overhead: int,
    resource: str,
) -> None:
    """Give the kubelet a pod, as if the scheduler had placed it here.

    Exit codes: 0 it runs; 1 it does not, kubelet's reason and message are printed; 2 it could not be asked.

    \b
    kata-node-agent devkubelet admit web
    kata-node-agent devkubelet admit greedy --count 1000     (more than there are: see what a user would)
    kata-node-agent devkubelet admit web --containers 2
    """
    with ControlClient(folder) as client:
        answer = client.ask(
            "admit",
            name=name,
            namespace=namespace,
            overhead=overhead,
            resource=resource,
            containers={f"c{number}": count for number in range(containers)},
        )
    if output_format == "json":
        _print_json(answer)
    else:
        click.echo(_pod_line(answer["pod"]))
    click.get_current_context().exit(0 if answer["pod"]["phase"] == "Running" else 1)


@command.command()
@click.argument("name")
@_dir_option
@options.output_format
@_namespace_option
def delete(folder: Folder, output_format: str, name: str, namespace: str) -> None:
    """Delete a pod; its devices are free at once.

    \b
    kata-node-agent devkubelet delete web
    """
    with ControlClient(folder) as client:
        answer = client.ask("delete", name=name, namespace=namespace)
    if output_format == "json":
        _print_json(answer)
    else:
        click.echo(f"deleted {namespace}/{name}")


@command.command()
@_dir_option
@options.output_format
@click.option(
    "--down",
    type=click.FloatRange(0, 50),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it is away.",
)
def restart(folder: Folder, output_format: str, down: float) -> None:
    """End it and start it again as at boot, in the same process; returns when kubelet.sock is there.

    \b
    kata-node-agent devkubelet restart
    kata-node-agent devkubelet restart --down 10
    """
    with ControlClient(folder) as client:
        answer = client.ask("restart", down_seconds=down)
    if output_format == "json":
        _print_json(answer)
    else:
        click.echo("restarted; plugins must register again")


@command.command()
@_dir_option
@options.output_format
def kill(folder: Folder, output_format: str) -> None:
    """Kill it with SIGKILL, by its pid. Its sockets stay, as after a crash of the real one.

    \b
    kata-node-agent devkubelet kill
    kata-node-agent devkubelet serve          (starts it again)
    """
    with ControlClient(folder) as client:
        pid = client.kill()
    if output_format == "json":
        _print_json({"ok": True, "pid": pid})
    else:
        click.echo(f"killed pid {pid}; start it again: kata-node-agent devkubelet serve --dir {folder.root}")


def _pod_line(pod: dict[str, Any]) -> str:
    line = f"{pod['namespace']}/{pod['name']}: {pod['phase']}"
    if pod["reason"]:
        line += f" {pod['reason']}: {pod['message']}"
    if pod["device_ids"]:
        line += f" [{', '.join(pod['device_ids'])}]"
    return line + (f" +{pod['overhead']} as overhead" if pod["overhead"] else "")


def _print_json(answer: dict[str, Any]) -> None:
    json.dump({key: value for key, value in answer.items() if key != "ok"} or {"ok": True}, sys.stdout)
    sys.stdout.write("\n")
