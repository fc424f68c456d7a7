"""`kata-node-agent dev`: two processes that a newcomer starts, kills and ends."""

from __future__ import annotations

import queue
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from kata_node_agent.devkubelet.children import describe_end, exit_code, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "kata_node_agent"]
# The command, with another agent.
DRIVER = [
    sys.executable,
    "-c",
    """
import sys
from pathlib import Path
from kata_node_agent.cli.dev import run_both
agent = [sys.executable, "-m", "tests.devkubelet.agent_stand_in"]
sys.exit(run_both(Path(sys.argv[1]), agent, tuple(sys.argv[2:])))
""",
]


class Program:
    """A running command whose output can be waited for."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str, timeout_seconds: float = 20.0) -> str:
        """The next line that has a text in it."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"no {text!r} in:\n{''.join(self.lines)}")
            if text in line:
                return line

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Sends a signal; gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._queue.put(line)
        self._queue.put(None)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.close()


def start(programs: list[Program], *command: str) -> Program:
    programs.append(Program(*command))
    return programs[-1]


def children(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.process.pid).children(recursive=True)


def sockets(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)
    )


def devkubelet(*arguments: str) -> str:
    return subprocess.run(
        [*PROGRAM, "devkubelet", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.host
def test_it_registers_says_what_is_advertised_and_what_to_try_next(
    short_dir: Path, programs: list[Program]
) -> None:
    dev = start(programs, *DRIVER, str(short_dir))
    dev.wait_for("dev     | registered after")
    dev.wait_for("advertised: katacontainers.io/sandbox: 2 allocatable of 2, 0 in use")
    dev.wait_for(f"devkubelet admit web --dir {short_dir}")
    assert f"pod resources: {short_dir}/pod-resources/kubelet.sock\n" in "".join(dev.lines)
    assert "\x1b" not in "".join(dev.lines)
    assert "Running" in devkubelet("admit", "web", "--dir", str(short_dir))
    dev.wait_for("pod-admitted pod=default/web")


@pytest.mark.host
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_within_2_s_and_leaves_what_a_kubelet_leaves(
    short_dir: Path, programs: list[Program], number: signal.Signals
) -> None:
    dev = start(programs, *DRIVER, str(short_dir))
    dev.wait_for("dev     | registered after")
    processes = children(dev)
    assert len(processes) == 2
    before = time.monotonic()
    assert dev.end(number) == 0
    assert time.monotonic() - before < 2
    assert not any(process.is_running() for process in processes)
    assert sockets(short_dir) == ["device-plugins/kubelet.sock", "pod-resources/kubelet.sock"]


@pytest.mark.host
def test_an_agent_that_does_not_end_is_killed_within_2_s(short_dir: Path, programs: list[Program]) -> None:
    dev = start(programs, *DRIVER, str(short_dir), "--stubborn")
    dev.wait_for("dev     | registered after")
    processes = children(dev)
    before = time.monotonic()
    assert dev.end() == 0
    assert time.monotonic() - before < 2
    assert not any(process.is_running() for process in processes)


@pytest.mark.host
def test_no_child_outlives_a_dev_that_is_killed(short_dir: Path, programs: list[Program]) -> None:
    dev = start(programs, *DRIVER, str(short_dir))
    dev.wait_for("dev     | registered after")
    processes = children(dev)
    dev.end(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=3)
    assert alive == []


@pytest.mark.host
def test_a_killed_kubelet_is_reported_and_one_started_by_hand_gets_the_agent_again(
    short_dir: Path, programs: list[Program]
) -> None:
    dev = start(programs, *DRIVER, str(short_dir))
    dev.wait_for("dev     | registered after")
    devkubelet("kill", "--dir", str(short_dir))
    dev.wait_for("was ended by SIGKILL")
    dev.wait_for(f"devkubelet serve --dir {short_dir}")
    by_hand = start(programs, *PROGRAM, "devkubelet", "serve", "--dir", str(short_dir))
    for _ in range(3):
        by_hand.wait_for("registered resource=katacontainers.io/sandbox")
        dev.wait_for(f"there again (pid {by_hand.process.pid})")
        dev.wait_for("registered")
        devkubelet("kill", "--dir", str(short_dir))
        by_hand = start(programs, *PROGRAM, "devkubelet", "serve", "--dir", str(short_dir))
    dev.wait_for(f"there again (pid {by_hand.process.pid})")
    assert dev.end() == 0
    dev.wait_for(f"started by hand (pid {by_hand.process.pid}) goes on; to end it:")
    dev.wait_for(f"devkubelet kill --dir {short_dir}")
    # Not ours: it goes on.
    assert by_hand.process.poll() is None
    assert by_hand.end(signal.SIGTERM) == 0


@pytest.mark.host
def test_when_the_agent_ends_all_ends_with_its_exit_code(short_dir: Path, programs: list[Program]) -> None:
    dev = start(programs, *DRIVER, str(short_dir), "--end-with", "7")
    dev.wait_for("the agent ended with exit code 7")
    assert dev.process.wait(10) == 7


@pytest.mark.host
def test_it_ends_when_nobody_reads_its_output(short_dir: Path) -> None:
    with subprocess.Popen(
        [*DRIVER, str(short_dir)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as dev:
        assert dev.stdout is not None
        assert dev.stderr is not None
        dev.stdout.readline()
        dev.stdout.close()
        assert dev.stderr.read() == b""
        assert dev.wait(10) == 0


@pytest.mark.host
def test_a_second_dev_in_the_folder_says_who_is_there(short_dir: Path, programs: list[Program]) -> None:
    dev = start(programs, *DRIVER, str(short_dir))
    dev.wait_for("dev     | registered after")
    second = start(programs, *PROGRAM, "dev", "--dir", str(short_dir))
    second.wait_for(f"pid {dev.process.pid}")
    second.wait_for("--dir")
    assert second.process.wait(10) == 2
    assert dev.process.poll() is None


@pytest.mark.host
def test_a_kubelet_started_by_hand_before_is_named(short_dir: Path, programs: list[Program]) -> None:
    by_hand = start(programs, *PROGRAM, "devkubelet", "serve", "--dir", str(short_dir))
    by_hand.wait_for("started")
    dev = start(programs, *PROGRAM, "dev", "--dir", str(short_dir))
    dev.wait_for(f"pid {by_hand.process.pid}")
    assert dev.process.wait(10) == 2


@pytest.mark.host
def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(
    short_dir: Path, programs: list[Program]
) -> None:
    folder = short_dir / ("deep" * 15)
    dev = start(programs, *PROGRAM, "dev", "--dir", str(folder))
    dev.wait_for("107")
    dev.wait_for("remedy: choose a folder with a shorter path, such as /tmp/kata")
    assert dev.process.wait(10) == 2
    assert list(short_dir.iterdir()) == []


def test_the_output_of_a_child_cannot_move_the_cursor() -> None:
    assert printable(b"a\x1b[2Jb\r\xff\tc\r") == "a�[2Jb��\tc"


def test_the_end_of_a_child_is_told_in_words_and_as_a_shells_exit_code() -> None:
    assert describe_end(3) == "ended with exit code 3"
    assert describe_end(-9) == "was ended by SIGKILL"
    assert (exit_code(3), exit_code(-9)) == (3, 137)


@pytest.mark.host
def test_the_agent_itself_registers_and_its_reasons_are_told(
    short_dir: Path, programs: list[Program]
) -> None:
    dev = start(programs, *PROGRAM, "dev", "--dir", str(short_dir))
    dev.wait_for("dev     | registered after")
    dev.wait_for("advertised: katacontainers.io/sandbox:")
    dev.wait_for("limited by ")
    devkubelet("restart", "--dir", str(short_dir))
    dev.wait_for("dev     | registered")
    assert dev.end() == 0
    assert sockets(short_dir) == ["device-plugins/kubelet.sock", "pod-resources/kubelet.sock"]
