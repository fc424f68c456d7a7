import os
import socket
from pathlib import Path

import pytest

from kata_node_agent.daemon.notify import Notifier


def receive(manager: socket.socket) -> str:
    manager.settimeout(1)
    return manager.recv(4096).decode()


@pytest.fixture
def manager(short_dir: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stream.bind(str(short_dir / "notify"))
    return stream


def test_systemd_is_told_each_state_in_its_words(manager: socket.socket, short_dir: Path) -> None:
    with manager:
        notifier = Notifier({"NOTIFY_SOCKET": str(short_dir / "notify")})
        notifier.ready()
        assert receive(manager) == "READY=1"
        notifier.reloading()
        assert receive(manager).startswith("RELOADING=1\nMONOTONIC_USEC=")
        notifier.status("one\ntwo")
        notifier.status("one\ntwo")
        assert receive(manager) == "STATUS=one two"
        notifier.watchdog()
        assert receive(manager) == "WATCHDOG=1", "an unchanged status is not repeated"
        notifier.stopping()
        assert receive(manager) == "STOPPING=1"


def test_abstract_addresses_work() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"kna-test-{os.getpid()}"
        manager.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert receive(manager) == "READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_no_manager_is_no_failure(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_fed_only_when_it_is_meant_for_us(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_seconds == seconds
