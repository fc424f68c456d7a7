"""Frames and the multiplexer, without a socket."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.nri.frames import MAX_DATA_BYTES, REQUEST, Frame, FrameReader, ProtocolError, header_of
from kata_node_agent.nri.mux import PLUGIN, RUNTIME, MuxReader, pieces_of
from tests.nri.support import pieces

FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.binary(max_size=60),
        st.integers(0, 255),
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(1, 30), min_size=1)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, index = [], 0
    while data:
        size = sizes[index % len(sizes)]
        parts.append(data[:size])
        data, index = data[size:], index + 1
    return parts


@given(FRAMES, CUTS)
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    frames: list[Frame], sizes: list[int]
) -> None:
    reader = FrameReader()
    data = b"".join(header_of(frame) + frame.data for frame in frames)
    assert [frame for part in cut(data, sizes) for frame in reader.feed(part)] == frames
    assert not reader.unfinished


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.binary(max_size=60)), max_size=6), CUTS)
def test_connections_are_streams_of_bytes_however_they_are_cut(
    sent: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    data = b"".join(struct.pack(">II", number, len(part)) + part for number, part in sent)
    reader, got = MuxReader(), dict[int, bytes]()
    for part in cut(data, sizes):
        for number, piece in reader.feed(part):
            got[number] = got.get(number, b"") + piece
    wanted = dict[int, bytes]()
    for number, part in sent:
        wanted[number] = wanted.get(number, b"") + part
    assert got == {number: whole for number, whole in wanted.items() if whole}
    assert not reader.unfinished


@given(st.binary(min_size=1, max_size=9000))
def test_a_written_frame_is_one_piece_of_header_and_one_of_data(data: bytes) -> None:
    frame = Frame(7, REQUEST, data)
    assert pieces(pieces_of(RUNTIME, frame)) == [(RUNTIME, header_of(frame)), (RUNTIME, data)]


def test_a_frame_without_data_has_no_piece_of_data() -> None:
    assert pieces(pieces_of(PLUGIN, Frame(1, 2, b""))) == [(PLUGIN, b"\0\0\0\0\0\0\0\1\2\0")]


@pytest.mark.parametrize("length", [MAX_DATA_BYTES + 1, 2**32 - 1])
def test_a_frame_beyond_the_limit_is_refused_before_its_data_is_there(length: int) -> None:
    with pytest.raises(ProtocolError, match=str(length)):
        FrameReader().feed(struct.pack(">IIBB", length, 1, 1, 0))


@pytest.mark.parametrize("length", [MAX_DATA_BYTES + 11, 2**32 - 1])
def test_a_piece_beyond_the_limit_is_refused_before_its_data_is_there(length: int) -> None:
    with pytest.raises(ProtocolError, match=str(length)):
        list(MuxReader().feed(struct.pack(">II", PLUGIN, length)))


def test_the_largest_frame_is_taken() -> None:
    reader = FrameReader()
    data = bytes(MAX_DATA_BYTES)
    assert reader.feed(header_of(Frame(1, 1, data)) + data) == [Frame(1, 1, data)]


def test_more_than_a_frame_holds_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        header_of(Frame(1, 1, bytes(MAX_DATA_BYTES + 1)))


def test_the_reserved_connection_is_refused() -> None:
    with pytest.raises(ProtocolError, match="reserved"):
        list(MuxReader().feed(struct.pack(">II", 0, 4) + b"abcd"))


def test_a_frame_that_has_begun_is_known_to_be_unfinished() -> None:
    frames, mux = FrameReader(), MuxReader()
    assert frames.feed(b"\0\0") == []
    list(mux.feed(b"\0"))
    assert frames.unfinished
    assert mux.unfinished
