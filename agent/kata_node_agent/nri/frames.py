"""ttrpc's frames: a header of ten bytes, then data. Bytes in, frames out; no socket is known here.

Source: github.com/containerd/ttrpc, PROTOCOL.md.
"""

from __future__ import annotations

import struct

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import NriError

# Length of the data, stream, type, flags.
_HEADER = struct.Struct(">IIBB")
HEADER_BYTES = _HEADER.size
MAX_DATA_BYTES = 4 << 20

REQUEST = 1
RESPONSE = 2


class ProtocolError(NriError):
    """The peer does not speak the protocol, or abuses it: its connection ends."""

    reason = "NriProtocol"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `kind` is `REQUEST`, `RESPONSE`, or what we do not know."""

    stream: int
    kind: int
    data: bytes
    flags: int = 0


def header_of(frame: Frame) -> bytes:
    """The ten bytes before the data.

    Raises:
        ProtocolError: there is more data than a frame may hold.
    """
    if len(frame.data) > MAX_DATA_BYTES:
        raise ProtocolError(f"a frame of {len(frame.data)} bytes; at most {MAX_DATA_BYTES} may be sent")
    return _HEADER.pack(len(frame.data), frame.stream, frame.kind, frame.flags)


class FrameReader:
    """Puts frames together from pieces of any size. Keeps one unfinished frame, never more."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete.

        Raises:
            ProtocolError: a length beyond the limit; said before a byte of it is kept.
        """
        self._buffer += data
        frames: list[Frame] = []
        begin = 0
        while len(self._buffer) - begin >= HEADER_BYTES:
            length, stream, kind, flags = _HEADER.unpack_from(self._buffer, begin)
            if length > MAX_DATA_BYTES:
                raise ProtocolError(f"a frame of {length} bytes; at most {MAX_DATA_BYTES} are taken")
            end = begin + HEADER_BYTES + length
            if end > len(self._buffer):
                break
            frames.append(Frame(stream, kind, bytes(self._buffer[begin + HEADER_BYTES : end]), flags))
            begin = end
        del self._buffer[:begin]
        return frames
