"""What a real runtime sent, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_node_agent.nri.frames import REQUEST, FrameReader
from kata_node_agent.nri.mux import PLUGIN, MuxReader
from kata_node_agent.pb import ttrpc_pb2

# By `make conformance` with CONFORMANCE_RECORD: containerd 2.4.2, NRI 0.12.3.
CONTAINERD = Path(__file__).with_name("containerd.nri")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request of the runtime's."""

    method: str
    payload: bytes


def requests_in(data: bytes) -> list[Recorded]:
    """The requests in what a runtime sent on its socket, in order."""
    mux, frames, found = MuxReader(), FrameReader(), list[Recorded]()
    for connection, part in mux.feed(data):
        if connection == PLUGIN:
            for frame in frames.feed(part):
                assert frame.kind == REQUEST
                request = ttrpc_pb2.Request.FromString(frame.data)
                found.append(Recorded(request.method, request.payload))
    return found
