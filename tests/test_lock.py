import os
from pathlib import Path

import pytest

from kata_node_agent.errors import BusyError, SocketError
from kata_node_agent.lock import Lock


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    first, second = (
        Lock(tmp_path / "lock", "it belongs to a running agent", hint="stop it"),
        Lock(tmp_path / "lock", "it belongs to a running agent", hint="stop it"),
    )
    first.acquire()
    with pytest.raises(BusyError, match=f"it belongs to a running agent: pid {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_note_of_garbage_does_not_hide_that_it_is_held(tmp_path: Path) -> None:
    first = Lock(tmp_path / "lock", "it", hint="stop it")
    first.acquire()
    (tmp_path / "lock").write_bytes(b"\xff\x00\x1b[2J" * 1000)
    with pytest.raises(BusyError, match="unknown process"):
        Lock(tmp_path / "lock", "it", hint="stop it").acquire()
    first.release()


@pytest.mark.parametrize("what", ["no folder", "directory", "link"])
def test_what_cannot_be_locked_is_said(tmp_path: Path, what: str) -> None:
    path = tmp_path / "lock"
    if what == "no folder":
        path = tmp_path / "none" / "lock"
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SocketError) as caught:
        Lock(path, "it", hint="stop it").acquire()
    assert caught.value.hint
