"""The files get to NFD's folder whole, or not at all, and only when there is something new to say."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.publish.nfd import FeatureFile, Outcome, PublishError
from kata_node_agent.publish.nfd.files import MAX_FILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> FeatureFile:
    return FeatureFile(tmp_path / "kata-node-agent.features")


def publish(file: FeatureFile, body: str = "a/b=c\n", now: float = NOW) -> Outcome:
    return file.publish(body, lifetime_seconds=600, now=now)


def names(file: FeatureFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.iterdir())


def test_the_first_publishing_writes_a_file_that_every_user_may_read(file: FeatureFile) -> None:
    before = os.umask(0o077)
    try:
        assert publish(file) is Outcome.WRITTEN
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644
    assert file.path.read_text().endswith("# +expiry-time=2027-01-15T08:10:00Z\na/b=c\n")
    assert names(file) == [file.path.name]


def test_the_same_again_is_not_written(file: FeatureFile) -> None:
    publish(file)
    before = file.path.stat()
    assert publish(file, now=NOW + 100) is Outcome.UNCHANGED
    assert (file.path.stat().st_ino, file.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_third_of_the_lifetime_later_it_is_refreshed(file: FeatureFile) -> None:
    publish(file)
    assert publish(file, now=NOW + 201) is Outcome.WRITTEN
    assert "08:13:21Z" in file.path.read_text()


def test_new_content_is_written_at_once(file: FeatureFile) -> None:
    publish(file)
    assert publish(file, "a/b=d\n", now=NOW + 1) is Outcome.WRITTEN


def test_a_file_that_somebody_changed_or_deleted_is_put_right(file: FeatureFile) -> None:
    publish(file)
    file.path.write_text("katacontainers.io/eligible=true\n")
    assert publish(file) is Outcome.WRITTEN
    file.path.unlink()
    assert publish(file) is Outcome.WRITTEN


def test_without_the_folder_there_is_no_failure_and_it_is_taken_up_when_it_appears(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "features.d" / "f")
    assert publish(file) is Outcome.NO_FOLDER
    assert file.read() is None
    assert file.remove() is False
    assert not file.path.parent.exists()
    file.path.parent.mkdir()
    assert publish(file) is Outcome.WRITTEN


def test_a_planted_link_is_replaced_and_not_followed(file: FeatureFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file.path.symlink_to(victim)
    with pytest.raises(PublishError, match="ELOOP"):
        file.read()
    assert publish(file) is Outcome.WRITTEN
    assert victim.read_text() == "precious"
    assert not file.path.is_symlink()


def test_a_link_planted_under_the_temporary_name_is_not_followed(file: FeatureFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".{file.path.name}.{os.getpid()}.tmp").symlink_to(victim)
    assert publish(file) is Outcome.WRITTEN
    assert victim.read_text() == "precious"


def test_a_fifo_under_the_name_does_not_hang_and_is_replaced(file: FeatureFile) -> None:
    os.mkfifo(file.path)
    with pytest.raises(PublishError, match="no regular file"):
        file.read()
    assert publish(file) is Outcome.WRITTEN


def test_a_folder_under_the_name_is_an_error(file: FeatureFile) -> None:
    file.path.mkdir()
    with pytest.raises(PublishError, match="cannot be written") as caught:
        publish(file)
    assert caught.value.hint
    assert names(file) == [file.path.name]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "features.d").touch()
    with pytest.raises(PublishError, match="ENOTDIR"):
        publish(FeatureFile(tmp_path / "features.d" / "f"))


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("open", errno.EROFS),
        ("open", errno.EACCES),
        ("write", errno.ENOSPC),
        ("fsync", errno.EIO),
        ("rename", errno.EROFS),
    ],
)
def test_when_it_cannot_be_written_the_old_file_stays_and_nothing_is_left(
    file: FeatureFile, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    publish(file)
    before = file.path.read_bytes()
    real = getattr(os, call)

    def fail(*arguments: Any, **named: Any) -> Any:
        if call == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **named)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(PublishError, match=errno.errorcode[number]) as caught:
            publish(file, "a/b=d\n")
    assert caught.value.reason == "FeatureFileUnusable"
    assert file.path.read_bytes() == before
    assert names(file) == [file.path.name]


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_the_whole(
    file: FeatureFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:7]))
        publish(file)
    assert file.path.read_text().endswith("a/b=c\n")


def test_what_nfd_would_ignore_for_its_size_is_refused(file: FeatureFile) -> None:
    with pytest.raises(PublishError, match="NFD ignores"):
        publish(file, "x" * MAX_FILE_BYTES)
    assert names(file) == []


def test_temporary_files_of_the_dead_are_swept_and_those_of_the_living_are_not(file: FeatureFile) -> None:
    old = file.path.with_name(f".{file.path.name}.1.tmp")
    new = file.path.with_name(f".{file.path.name}.{os.getpid() + 1}.tmp")
    other = file.path.with_name(".somebody.else")
    for path in (old, new, other):
        path.touch()
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    publish(file)
    assert sorted(names(file)) == sorted([new.name, other.name, file.path.name])


def test_removing_says_whether_there_was_something_to_remove(file: FeatureFile) -> None:
    publish(file)
    assert file.remove() is True
    assert file.remove() is False
    assert names(file) == []


def test_removing_a_planted_link_leaves_its_target(file: FeatureFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    file.path.symlink_to(victim)
    assert file.remove() is True
    assert victim.exists()


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_a_part(file: FeatureFile) -> None:
    publish(file)
    inode = file.path.stat().st_ino
    with file.path.open() as reader:
        publish(file, "a/b=d\n")
        assert reader.read().endswith("a/b=c\n")
    assert file.path.stat().st_ino != inode


def test_no_descriptor_is_left_open(file: FeatureFile) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        publish(file, f"a/b={number}\n")
        file.read()
        file.remove()
    assert len(os.listdir("/proc/self/fd")) == before
