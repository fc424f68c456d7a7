"""Imports only go down: ARCHITECTURE.md's table and the code are held together here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kata_node_agent

ROOT = Path(__file__).parents[1]
PACKAGE = Path(kata_node_agent.__file__).parent


def floors() -> dict[str, int]:
    """Room → floor, from the table."""
    rooms: dict[str, int] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if match := re.match(r"\| (\d) \| (.+?) \|", line):
            for name in re.findall(r"`([\w/.]+)`", match[2]):
                rooms[name.removesuffix("/").removesuffix(".py")] = int(match[1])
    return rooms


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "pb" not in path.relative_to(PACKAGE).parts)


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module]
                if node.module != "kata_node_agent"
                else [f"kata_node_agent.{a.name}" for a in node.names]
            )
        for name in names:
            parts = name.split(".")
            if parts[0] == "kata_node_agent" and len(parts) > 1 and not parts[1].startswith("_"):
                yield parts[1]


def test_the_table_names_every_room() -> None:
    here = {room_of(path.relative_to(PACKAGE).parts) for path in modules()} - {"__init__", "__main__"}
    assert here | {"pb"} == set(floors())


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    rooms, room = floors(), room_of(path.relative_to(PACKAGE).parts)
    if room in {"__init__", "__main__"}:
        return
    for other in imported_rooms(path):
        assert other == room or rooms[other] < rooms[room], (
            f"{room} (floor {rooms[room]}) imports {other} (floor {rooms[other]})"
        )


def test_no_file_of_the_package_is_two_rooms() -> None:
    long = {
        str(path.relative_to(PACKAGE)): n
        for path in modules()
        if (n := len(path.read_text().splitlines())) > 340
    }
    assert not long
