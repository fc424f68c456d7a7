import socket
from pathlib import Path

import pytest

from kata_node_agent.errors import BusyError, SocketError
from kata_node_agent.sockets import identity_of, make_room


def test_a_socket_that_a_dead_process_left_makes_room(short_dir: Path) -> None:
    path = short_dir / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    make_room(path)
    assert not path.exists()


def test_a_living_socket_is_left_alone(short_dir: Path) -> None:
    path = short_dir / "a.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(BusyError, match="another process listens"):
            make_room(path)
        assert path.exists()


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_what_is_no_socket_is_left_alone(short_dir: Path, kind: str) -> None:
    path = short_dir / "a.sock"
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(short_dir / "elsewhere")
    with pytest.raises(SocketError, match="in the way") as caught:
        make_room(path)
    assert caught.value.hint
    assert path.is_symlink() or path.exists()


def test_a_path_over_107_bytes_is_refused_with_its_length(short_dir: Path) -> None:
    path = short_dir / ("x" * (108 - len(str(short_dir)) - 1))
    with pytest.raises(SocketError, match="108 bytes"):
        make_room(path)


def test_a_socket_made_anew_has_another_identity(short_dir: Path) -> None:
    path = short_dir / "a.sock"
    seen = set()
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
            seen.add(identity_of(path))
        path.unlink()
    assert len(seen) == 20
    assert identity_of(path) is None
