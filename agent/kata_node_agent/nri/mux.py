"""NRI's multiplexer: two ttrpc connections on one socket, each piece with the connection's number and its length.

Reading, a connection is a stream of bytes: where its pieces end means nothing. Writing, it is not, as the runtime's reader
takes one piece a read: a ttrpc header is one piece and its data exactly one more.

Source: github.com/containerd/nri, pkg/net/multiplex/mux.go.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kata_node_agent.nri.frames import HEADER_BYTES, MAX_DATA_BYTES, ProtocolError, header_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.nri.frames import Frame

# Number of the connection, length of the piece.
_HEADER = struct.Struct(">II")
_MAX_PIECE_BYTES = MAX_DATA_BYTES + HEADER_BYTES
_RESERVED = 0
# On the first we serve, on the second the runtime does.
PLUGIN = 1
RUNTIME = 2


class MuxReader:
    """Takes the socket's bytes apart. Passes on what it gets and keeps no more than an unfinished header."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._connection = _RESERVED
        self._left = 0

    @property
    def unfinished(self) -> bool:
        """Whether a piece has begun and not ended."""
        return bool(self._header) or self._left > 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Parts of pieces with the number of their connection, in order. To be used up before the next call.

        Raises:
            ProtocolError: a length beyond the limit, or the reserved connection.
        """
        offset = 0
        while offset < len(data):
            if not self._left:
                wanted = _HEADER.size - len(self._header)
                self._header += data[offset : offset + wanted]
                offset += wanted
                if len(self._header) < _HEADER.size:
                    return
                self._connection, self._left = _HEADER.unpack(self._header)
                self._header.clear()
                if self._left > _MAX_PIECE_BYTES:
                    raise ProtocolError(
                        f"a piece of {self._left} bytes; at most {_MAX_PIECE_BYTES} are taken"
                    )
                if self._connection == _RESERVED:
                    raise ProtocolError("a piece for the reserved connection 0")
                continue
            part = data[offset : offset + self._left]
            offset += len(part)
            self._left -= len(part)
            yield self._connection, part


def pieces_of(connection: int, frame: Frame) -> bytes:
    """A frame as it goes to the socket: its header as one piece, its data, if any, as one more.

    Raises:
        ProtocolError: there is more data than a frame may hold.
    """
    header = header_of(frame)
    pieces = _HEADER.pack(connection, len(header)) + header
    if frame.data:
        pieces += _HEADER.pack(connection, len(frame.data)) + frame.data
    return pieces
