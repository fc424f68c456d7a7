"""The file: what was acknowledged is there after any death, and a file that is no good is set aside, never believed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kata_node_agent.capacity.free import NodeMemory
from kata_node_agent.config.schema import Mode
from kata_node_agent.errors import LedgerError
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.store import KEPT_NOTES, Store
from tests.ledger.support import BOOT, GIB, ONE, World, claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "run"
    folder.mkdir()
    return World(folder)


def problem_of(account: Account) -> str:
    return account.problem.message if account.problem is not None else ""


def filled(world: World) -> World:
    world.account.admit(claim("a"))
    world.account.admit(claim("b", 4 * GIB))
    world.account.confirm("b")
    world.account.allocate([7])
    return world


def test_all_that_was_answered_is_there_after_a_restart(world: World) -> None:
    before = filled(world).account.book
    world.restart()
    after = world.account.book
    assert after.admissions == before.admissions
    assert after.devices == before.devices
    assert after.committed == before.committed
    assert [note["what"] for note in world.account.history(9)] == ["admit", "admit", "allocate"]


def test_the_file_is_roots_alone(world: World) -> None:
    filled(world)
    for name in ("ledger.db", "ledger.db-journal"):
        assert (world.path.with_name(name).stat().st_mode & 0o777) == 0o600


def test_the_history_is_bounded(world: World) -> None:
    store = Store(world.path.with_name("other.db"), BOOT)
    store.open()
    for index in range(KEPT_NOTES + 5):
        store.write({}, [{"n": index}])
    notes = store.notes(KEPT_NOTES * 2)
    assert len(notes) == KEPT_NOTES
    assert notes[-1] == {"n": KEPT_NOTES + 4}
    store.close()


def test_a_file_of_another_boot_is_set_aside(world: World) -> None:
    filled(world).account.close()
    other = world.new_account(boot="99999999-2222-3333-4444-555555555555")
    other.open()
    assert other.set_aside == "of another boot"
    assert not other.book.admissions
    assert world.path.with_name("ledger.db.set-aside").exists()
    other.close()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_a_page_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def another_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entry (key, body, crc)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()


def another_number(path: Path) -> None:
    content = path.read_bytes()
    assert b'"vm_bytes":4294967296' in content
    path.write_bytes(content.replace(b'"vm_bytes":4294967296', b'"vm_bytes":1294967296'))


def no_json(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entry SET body = '[' WHERE key LIKE 'admission/%'")
    connection.commit()
    connection.close()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/ledger.db")


DAMAGES: list[Callable[[Path], None]] = [
    truncate, cut_a_page_short, fill_with_garbage, another_database, newer, another_number, no_json, a_folder,
    a_link_to_nowhere,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_no_good_is_set_aside_and_what_runs_is_observed(
    world: World, damage: Callable[[Path], None]
) -> None:
    filled(world).account.close()
    damage(world.path)
    world.run("b", 4 * GIB)
    world.restart()
    assert world.account.set_aside
    assert list(world.account.book.admissions) == ["b"]
    assert world.free == 20 * GIB - 4 * GIB - ONE.overhead_bytes
    assert os.path.lexists(world.path.with_name("ledger.db.set-aside"))
    assert world.account.admit(claim("c")).allowed
    world.restart()
    assert sorted(world.account.book.admissions) == ["b", "c"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), length=st.integers(1, 40))
def test_a_damaged_byte_never_becomes_another_promise(
    tmp_path: Path, place: float, bits: int, length: int
) -> None:
    path = tmp_path / "ledger.db"
    path.unlink(missing_ok=True)
    store = Store(path, BOOT)
    store.open()
    entries = {f"admission/{n}": {"sandbox": str(n), "vm_bytes": n} for n in range(40)}
    store.write(dict(entries))
    store.close()
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    for index in range(start, min(start + length, len(content))):
        content[index] ^= bits
    path.write_bytes(content)
    again = Store(path, BOOT)
    opened = again.open()
    # What the damage missed is whole; what it hit is set aside as a whole.
    assert opened.entries == ({} if opened.set_aside else entries)
    again.write({"admission/x": {"sandbox": "x"}})
    assert again.verify() == []
    again.close()


def test_of_two_agents_one_wins(world: World) -> None:
    filled(world)
    second = world.new_account()
    with pytest.raises(LedgerError, match="database is locked"):
        second.open()
    second.flush()
    assert "database is locked" in problem_of(second)
    assert not second.admit(claim("z")).allowed
    world.account.close()
    second.open()
    assert sorted(second.book.admissions) == ["a", "b"]
    assert not problem_of(second)
    second.close()


def test_a_file_locked_by_another_refuses_says_so_and_recovers(world: World) -> None:
    filled(world).account.close()
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    account = world.account = world.new_account()
    with pytest.raises(LedgerError, match="database is locked"):
        account.open()
    world.run("b", 4 * GIB)
    world.look()
    refused = account.admit(claim("c"))
    assert (refused.allowed, refused.reason) == (False, "LedgerUnavailable")
    assert "database is locked" in refused.message
    assert "database is locked" in problem_of(account)
    other.close()
    account.open()
    world.look()
    assert sorted(account.book.admissions) == ["a", "b"]
    # What was answered to it is not lost by its VM having been seen first.
    assert account.book.admissions["b"].origin == "admitted"
    assert account.book.admissions["b"].confirmed
    assert account.admit(claim("c")).allowed
    world.restart()
    assert sorted(world.account.book.admissions) == ["a", "b", "c"]


def test_an_admission_is_not_forgotten_for_a_smaller_vm_that_was_seen_before_the_file_could_be_read(
    world: World,
) -> None:
    filled(world).account.close()
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    account = world.account = world.new_account()
    with pytest.raises(LedgerError):
        account.open()
    world.run("b", GIB)
    world.look()
    other.close()
    world.account.flush()
    account.open()
    world.look()
    assert account.book.commitment("b").need.vm_bytes == 4 * GIB  # type: ignore[union-attr]
    world.restart()
    assert world.account.book.commitment("b").need.vm_bytes == 4 * GIB  # type: ignore[union-attr]


def test_a_file_that_is_taken_away_is_there_again_before_anything_is_asked(world: World) -> None:
    filled(world)
    world.path.unlink()
    world.account.flush()
    assert world.account.verify() == []
    # As after SIGKILL: nothing is written on the way out.
    world.account = world.new_account()
    copy = world.path.with_name("copy.db")
    copy.write_bytes(world.path.read_bytes())
    store = Store(copy, BOOT)
    assert {"admission/a", "admission/b", "device/7"} <= store.open().entries.keys()
    store.close()


def test_a_journal_that_is_removed_costs_neither_the_file_nor_its_history(world: World) -> None:
    filled(world)
    world.path.with_name("ledger.db-journal").unlink()
    assert world.account.admit(claim("c")).allowed
    assert not world.path.with_name("ledger.db.set-aside").exists()
    assert [note["sandbox"] for note in world.account.history(9)] == ["a", "b", "kata-000007", "c"]
    assert world.account.verify() == []


def test_a_file_of_another_process_in_our_place_is_not_moved_away_while_it_is_locked(world: World) -> None:
    filled(world)
    world.path.unlink()
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN EXCLUSIVE")
    refused = world.account.admit(claim("c"))
    assert (refused.allowed, refused.reason) == (False, "LedgerUnavailable")
    assert "database is locked" in refused.message
    assert not world.path.with_name("ledger.db.set-aside").exists()
    other.close()
    assert world.account.admit(claim("c")).allowed
    world.restart()
    assert sorted(world.account.book.admissions) == ["a", "b", "c"]


@pytest.mark.parametrize("first", ["folder", "full-folder", "file"])
def test_what_was_set_aside_before_is_never_in_the_way(world: World, first: str) -> None:
    filled(world)
    aside = world.path.with_name("ledger.db.set-aside")
    if first == "file":
        aside.write_bytes(b"older")
        world.path.unlink()
        world.path.mkdir()
    else:
        aside.mkdir()
        if first == "full-folder":
            (aside / "something").touch()
            world.path.unlink()
            world.path.mkdir()
        else:
            world.account.close()
            world.path.write_bytes(b"not a database" * 500)
            world.restart()
            assert world.account.set_aside
    assert world.account.admit(claim("c")).allowed
    assert world.account.verify() == []


def test_what_was_let_through_unwritten_is_not_acknowledged_in_enforce_before_it_is_written(
    world: World,
) -> None:
    filled(world)
    away = world.path.parent.rename(world.path.parent.with_name("elsewhere"))
    world.mode = Mode.WARN
    assert world.account.admit(claim("c")).allowed
    world.mode = Mode.ENFORCE
    again = world.account.admit(claim("c"))
    assert (again.allowed, again.reason) == (False, "LedgerUnavailable")
    away.rename(world.path.parent)
    assert world.account.admit(claim("c")).reason == "AlreadyAdmitted"
    world.restart()
    assert "c" in world.account.book.admissions


def test_the_wall_clock_may_jump_and_nothing_but_the_historys_times_shows_it(world: World) -> None:
    account = Account(
        Store(world.path.with_name("other.db"), BOOT),
        world.policy,
        ONE,
        clock=lambda: world.now,
        wall=iter([2e9, 1e9, 3e9, 0.0]).__next__,
    )
    account.open()
    account.take_memory(NodeMemory(20 * GIB), share=1.0, margin_bytes=0, rise_seconds=60)
    for name in "abcd":
        assert account.admit(claim(name)).allowed
    assert [note["sandbox"] for note in account.history(9)] == ["a", "b", "c", "d"]
    assert account.book.committed_bytes == 4 * ONE.total_bytes
    account.close()


@pytest.mark.parametrize("how", ["removed", "replaced", "journal-removed", "folder"])
def test_a_file_that_others_replace_is_written_anew_with_all_that_was_promised(
    world: World, how: str
) -> None:
    filled(world)
    if how == "journal-removed":
        world.path.with_name("ledger.db-journal").unlink()
    else:
        world.path.unlink()
    if how == "replaced":
        world.path.write_bytes(b"not a database" * 100)
    elif how == "folder":
        world.path.mkdir()
    assert world.account.verify()
    assert world.account.admit(claim("c")).allowed
    assert world.account.verify() == []
    world.restart()
    assert sorted(world.account.book.admissions) == ["a", "b", "c"]
    assert sorted(world.account.book.devices) == [7]


def test_a_folder_that_is_gone_refuses_and_recovers(world: World) -> None:
    filled(world)
    elsewhere = world.path.parent.rename(world.path.parent.with_name("elsewhere"))
    assert world.account.admit(claim("c")).reason == "LedgerUnavailable"
    world.account.release("a")
    world.path.parent.mkdir()
    assert world.account.admit(claim("c")).allowed
    world.restart()
    assert sorted(world.account.book.admissions) == ["b", "c"]
    assert elsewhere.exists()


def test_what_happened_while_nothing_could_be_written_is_written_later(world: World) -> None:
    filled(world)
    world.path.parent.rename(world.path.parent.with_name("elsewhere"))
    world.run("new")
    world.look()
    world.account.release("a")
    world.account.hold_devices({})
    assert problem_of(world.account)
    world.path.parent.mkdir()
    world.account.flush()
    assert not problem_of(world.account)
    world.running.clear()
    world.restart()
    # The first look after the restart ends what was released, and knows the new one to have been seen.
    assert sorted(world.account.book.admissions) == ["b", "new"]
    assert not world.account.book.devices


def test_an_entry_that_makes_no_sense_is_passed_over_and_removed(world: World) -> None:
    filled(world).account.close()
    store = Store(world.path, BOOT)
    store.open()
    future = {"sandbox": "f", "origin": "admitted", "vm_bytes": 1, "overhead_bytes": 1, "since": 1e9}
    store.write({"admission/x": {"sandbox": "y"}, "device/z": {}, "what": {}, "admission/f": future})
    store.close()
    world.restart()
    assert sorted(world.account.book.admissions) == ["a", "b"]
    assert world.account.verify() == []


def test_what_was_changed_while_nobody_had_the_file_is_found_by_its_checksum(world: World) -> None:
    filled(world)
    world.account.close()
    with world.path.open("r+b") as file:
        content = file.read()
        file.seek(content.index(b'"vm_bytes":4294967296'))
        file.write(b'"vm_bytes":1')
    store = Store(world.path, BOOT)
    assert store.open().set_aside
    store.close()


def test_a_device_is_in_the_file_before_kubelet_is_answered_and_its_line_of_the_history_soon_after(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)

    def in_file(query: str) -> str:
        with closing(sqlite3.connect(f"file:{world.path}?mode=ro&immutable=1", uri=True)) as file:
            return str(file.execute(query).fetchall())

    world.account.allocate([3])
    assert "device/3" in in_file("SELECT key FROM entry")
    assert "kata-000003" not in in_file("SELECT body FROM note")
    world.account.flush()
    assert "kata-000003" in in_file("SELECT body FROM note")


@pytest.mark.parametrize("damage", ["overwritten", "cut", "of zeros", "one page"])
def test_what_others_write_into_our_file_is_said_and_mended_and_drain_is_kept(
    tmp_path: Path, damage: str
) -> None:
    world = World(tmp_path)
    world.account.set("drain", "on")
    world.account.admit(claim("a"))
    assert world.account.verify() == []
    size = world.path.stat().st_size
    with open(world.path, "r+b") as file:
        if damage == "overwritten":
            file.truncate()
            file.write(b"garbage\n")
        elif damage == "cut":
            file.truncate(size // 2)
        elif damage == "of zeros":
            file.write(bytes(size))
        else:
            file.seek(4096)
            file.write(b"\xff" * 4096)
    assert world.account.verify()
    world.account.flush()
    assert world.account.verify() == []
    assert world.path.with_name("ledger.db.set-aside").exists()
    world.restart()
    assert world.account.setting("drain") == "on"
    assert world.account.book.admissions.keys() == {"a"}
