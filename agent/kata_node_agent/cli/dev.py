"""`kata-node-agent dev`: the agent and a development kubelet in one folder; `make run` is this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.devkubelet.children import Child, describe_end, end, exit_code
from kata_node_agent.devkubelet.client import ControlClient
from kata_node_agent.devkubelet.follow import follow
from kata_node_agent.devkubelet.names import KUBELET_SOCKET, Folder
from kata_node_agent.errors import AgentError, BusyError, SocketError
from kata_node_agent.lock import Lock
from kata_node_agent.sockets import check_socket_path, refuses_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

# SIGTERM to SIGKILL; with what comes after it everything is over within 2 s.
GRACE_SECONDS = 1.5
PATIENCE_SECONDS = 10.0
_COLOURS = {"dev": 36, "kubelet": 35, "agent": 32}


@click.command("dev", short_help="Try it all, in one folder.")
@click.option(
    "--dir",
    "root",
    default="./.run",
    show_default=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all that is made.",
)
@click.argument("run_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENTS OF run]")
def command(root: Path, run_arguments: tuple[str, ...]) -> int:
    """Run the agent together with a development kubelet, until Ctrl-C.

    Needs no root, and writes nothing outside DIR. It prints what both say, what the node would advertise and
    why, and what to try from a second terminal.

    \b
    kata-node-agent dev
    kata-node-agent dev --dir /tmp/kata
    kata-node-agent dev -- --mode warn --log-level debug

    Exit codes: 0 after Ctrl-C or SIGTERM; else the agent's, when it ends by itself; 2 nothing was started.
    """
    return run_both(root, [sys.executable, "-m", "kata_node_agent", "run"], run_arguments)


def run_both(root: Path, agent: list[str], run_arguments: tuple[str, ...] = ()) -> int:
    """Runs ``agent`` with the folders below ``root`` as `run` takes them; gives the exit code.

    Raises:
        SocketError: the folder's path is too long, or it cannot be written.
        BusyError: another `dev`, or a development kubelet, is there.
    """
    folder = Folder(root.absolute())
    run_dir = folder.root / "run"
    folder.check()
    check_socket_path(run_dir / "agent.sock")
    agent = [*agent, "--device-plugin-dir", str(folder.device_plugins), "--run-dir", str(run_dir)]
    agent += ["--state-dir", str(folder.root / "state"), *run_arguments]
    folder.make()
    busy = f"`kata-node-agent dev` already runs in {folder.root}"
    with Lock(folder.root / "dev.lock", busy, hint="use that one, or give another --dir"):
        _refuse_a_kubelet_that_runs(folder)
        return asyncio.run(Dev(folder, root, agent).run())


class Dev:
    """Both children, and the narration between them."""

    def __init__(self, folder: Folder, shown_root: Path, agent: list[str]) -> None:
        self._folder = folder
        self._shown_root = shown_root
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        kubelet = [sys.executable, "-m", "kata_node_agent", "devkubelet", "serve", "--dir", str(folder.root)]
        self._kubelet = Child("kubelet", kubelet, {}, lambda line: self._print("kubelet", line))
        environment = {
            "KATA_NODE_AGENT_KUBELET_POD_RESOURCES_SOCKET": str(folder.pod_resources_socket),
            # A runtime of this machine is not to be told what it may run by an agent that is tried out.
            "KATA_NODE_AGENT_NRI_ENABLED": "false",
        }
        self._agent = Child("agent", agent, environment, lambda line: self._print("agent", line))
        self._started = time.monotonic()
        self._kubelet_pid = 0
        self._registered = self._lost = False
        self._taught = False
        self._counts = ""
        self._reasons: list[str] = []
        self._news = asyncio.Event()
        self._asked_to_end = asyncio.Event()

    async def run(self) -> int:
        """Starts both, narrates, ends both; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_end.set)
        self._say(f"the agent and a development kubelet run in {self._shown_root}; Ctrl-C ends both")
        stop = asyncio.create_task(self._asked_to_end.wait())
        others: list[asyncio.Task[Any]] = [stop]
        started: list[asyncio.Task[int]] = []
        try:
            started.append(await self._kubelet.start())
            started.append(await self._agent.start())
            others += [
                asyncio.create_task(
                    follow(self._folder, here=self._here, event=self._event, gone=self._gone)
                ),
                asyncio.create_task(self._explain()),
                asyncio.create_task(self._lose_patience()),
            ]
            return await self._wait(stop, *started)
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await end([self._agent, self._kubelet], started, GRACE_SECONDS)
            self._remove_dead_sockets()
            self._say_what_goes_on()

    async def _wait(
        self, stop: asyncio.Task[Any], kubelet: asyncio.Task[int], agent: asyncio.Task[int]
    ) -> int:
        await asyncio.wait({stop, kubelet, agent}, return_when=asyncio.FIRST_COMPLETED)
        if kubelet.done() and not stop.done() and not agent.done():
            if not self._kubelet_pid:
                self._say(f"the development kubelet {describe_end(kubelet.result())} before it was there")
                return 2
            self._say(
                f"the development kubelet (pid {self._kubelet.pid}) {describe_end(kubelet.result())}; "
                "the agent goes on and waits for it. Start it again in another terminal:"
            )
            self._say(f"    {self._line('devkubelet serve')}")
            await asyncio.wait({stop, agent}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            self._say(f"the agent {describe_end(agent.result())}")
            return exit_code(agent.result())
        self._say("ending")
        return 0

    def _here(self, status: dict[str, Any]) -> None:
        """A kubelet answers: ours, or one that somebody started by hand."""
        pid = int(status.get("pid", 0))
        if self._kubelet_pid and pid != self._kubelet_pid:
            self._say(f"a development kubelet is there again (pid {pid})")
        self._kubelet_pid = pid
        for entry in status.get("resources", []):
            if entry["endpoints"]:
                self._event({"event": "Registered", **entry})
                self._event({"event": "DevicesChanged", **entry})

    def _gone(self) -> None:
        self._registered = self._lost = False
        self._counts = ""
        self._reasons = []

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("event") == "Registered":
            self._registered, self._lost = True, False
            after = "" if self._taught else f" after {(time.monotonic() - self._started) * 1000:.0f} ms"
            self._say(f"registered{after}: {event['resource']}")
        elif event.get("event") == "DevicesChanged":
            if not self._registered and not self._lost:
                # We began to listen between the registration and the first list of devices.
                self._event({**event, "event": "Registered"})
            counts = f"{event['allocatable']} allocatable of {event['capacity']}, {event['in_use']} in use"
            if counts != self._counts:
                self._counts = counts
                self._say(f"advertised: {event['resource']}: {counts}")
        elif event.get("event") == "StreamLost":
            self._registered, self._lost = False, True
        else:
            return
        self._news.set()

    async def _explain(self) -> None:
        """Says why the numbers are what they are, in the agent's words, whenever they may have changed."""
        while True:
            await self._news.wait()
            self._news.clear()
            # The agent may be about to say more.
            await asyncio.sleep(0.2)
            reasons = await asyncio.to_thread(_reasons, self._folder.root / "run")
            for line in reasons:
                if line not in self._reasons:
                    self._say(line)
            self._reasons = reasons
            if self._registered and not self._taught:
                self._taught = True
                self._teach()

    async def _lose_patience(self) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        if not self._registered:
            self._say(f"not registered after {PATIENCE_SECONDS:.0f} s; the agent's lines above say why")

    def _teach(self) -> None:
        run_dir = shlex.quote(str(self._shown_root / "run"))
        rows = (
            (self._line("devkubelet admit web"), "give kubelet a pod"),
            (self._line("devkubelet pods"), "what became of it"),
            (self._line("devkubelet restart"), "kubelet restarts: the agent registers again"),
            (self._line("devkubelet kill"), "kubelet is killed with SIGKILL …"),
            (self._line("devkubelet serve"), "… and started again"),
            (f"{_program()} status --run-dir {run_dir}", "what the agent says"),
            (f"{_program()} check", "whether this machine can run Kata VMs"),
        )
        width = max(len(line) for line, _ in rows)
        self._say("in another terminal:")
        for line, what in rows:
            self._say(f"    {line:<{width}}  {what}")

    def _line(self, what: str) -> str:
        return f"{_program()} {what} --dir {shlex.quote(str(self._shown_root))}"

    def _say(self, text: str) -> None:
        self._print("dev", text)

    def _print(self, who: str, line: str) -> None:
        prefix = f"{who:<7} |"
        if self._colour:
            prefix = f"\x1b[{_COLOURS[who]}m{prefix}\x1b[0m"
        try:
            print(prefix, line, flush=True)
        except BrokenPipeError:
            # Nobody reads any more (`| head`). What is still in the buffer must not complain at our end.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
            self._asked_to_end.set()

    def _say_what_goes_on(self) -> None:
        """Names a kubelet that somebody started by hand: it is not ours to end."""
        # Only one that was seen: who pressed Ctrl-C does not wait for a look at what was never there.
        if not self._kubelet_pid or self._kubelet_pid == self._kubelet.pid:
            return
        try:
            with ControlClient(self._folder, timeout_seconds=0.5) as client:
                pid = client.pid
        except SocketError:
            return
        self._say(f"the development kubelet that was started by hand (pid {pid}) goes on; to end it:")
        self._say(f"    {self._line('devkubelet kill')}")

    def _remove_dead_sockets(self) -> None:
        """Removes what a killed child left, except what a kubelet leaves."""
        for path in _sockets(self._folder):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode) and refuses_connections(path):
                    path.unlink()


def _refuse_a_kubelet_that_runs(folder: Folder) -> None:
    try:
        with ControlClient(folder, timeout_seconds=2.0) as client:
            pid = client.pid
    except SocketError as error:
        if error.reason == "DevKubeletNotRunning":
            return
        raise
    raise BusyError(
        f"a development kubelet already runs in {folder.root}: pid {pid}",
        hint=f"end it (kata-node-agent devkubelet kill --dir {folder.root}), or give another --dir",
    )


def _reasons(run_dir: Path) -> list[str]:
    """What the agent says of its limits and problems, one line each; nothing where it does not answer."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kata_node_agent.api.client import get_status

    try:
        status = get_status(run_dir)
    except AgentError:
        return []
    slots = status.slots
    lines = [f"limited by {slots.limited_by}: {slots.limited_by_message}"] if slots.limited_by else []
    for problem in status.problems:
        remedy = f"; remedy: {problem.remedy}" if problem.remedy else ""
        lines.append(f"problem {problem.reason}: {problem.message}{remedy}")
    return lines


def _sockets(folder: Folder) -> Iterator[Path]:
    yield folder.control_socket
    for place in (folder.root / "run", folder.device_plugins):
        if place.is_dir():
            yield from (path for path in place.iterdir() if path.name != KUBELET_SOCKET)


def _program() -> str:
    """How people call us, from what they typed."""
    name = "kata-node-agent"
    called = Path(sys.argv[0])
    if called.name != name:
        return f"{_short(Path(sys.executable))} -m kata_node_agent"
    return name if shutil.which(name) == str(called) else _short(called)


def _short(path: Path) -> str:
    here = Path.cwd()
    near = path.is_relative_to(here) and here != Path("/")
    return shlex.quote(str(path.relative_to(here) if near else path))
