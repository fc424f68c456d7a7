"""What a real runtime sent, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_node_agent.nri.events import Event
from kata_node_agent.nri.frames import REQUEST, FrameReader
from kata_node_agent.nri.mux import PLUGIN, MuxReader
from kata_node_agent.pb import nri_pb2, ttrpc_pb2

# By `make conformance` with CONFORMANCE_RECORD. NRI 0.12.3, 0.8.0, and 0.9.1 before its release.
RECORDINGS = {
    name: Path(__file__).with_name(f"{name}.nri") for name in ("containerd", "containerd-1.7", "cri-o")
}
CONTAINERD = RECORDINGS["containerd"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request of the runtime's."""

    method: str
    payload: bytes

    @property
    def event(self) -> str:
        """Its method, or that of the event which it tells in the older way."""
        if self.method != "StateChange":
            return self.method
        number = nri_pb2.StateChangeEvent.FromString(self.payload).event
        return "".join(word.capitalize() for word in Event(number).name.split("_"))


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
