"""Others at a runtime's NRI socket: a plugin that refuses, and somebody between runtime and plugin who writes down.

`python -m tests.conformance.nri_peers refuse SOCKET METHOD` or `record SOCKET LISTEN FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kata_node_agent.nri.connection import Call, Connection, StatusError
from kata_node_agent.nri.dial import connect
from kata_node_agent.pb import nri_pb2

_RUNTIME = "nri.pkg.api.v1alpha1.Runtime"
_EVENTS = {"RunPodSandbox": 1, "CreateContainer": 1 << 3}
_INVALID_ARGUMENT = 3


async def refuse(socket: Path, method: str) -> None:
    """A plugin that says no to one method, after every other plugin has said yes; prints a line when it is taken in."""

    async def serve(call: Call) -> bytes:
        if call.method == "Configure":
            return nri_pb2.ConfigureResponse(events=_EVENTS[method]).SerializeToString()
        if call.method == "Synchronize":
            print("synchronized", flush=True)
            return b""
        raise StatusError(_INVALID_ARGUMENT, "the other plugin says no")

    reader, writer = await connect(socket)
    connection = Connection(reader, writer, serve)
    running = asyncio.create_task(connection.run())
    # Of the same index: who comes later is asked later.
    request = nri_pb2.RegisterPluginRequest(plugin_name="other", plugin_idx="99")
    await connection.call(_RUNTIME, "RegisterPlugin", request.SerializeToString(), timeout_seconds=10)
    await running


async def record(socket: Path, listen: Path, file: Path) -> None:
    """Passes on between a plugin, which connects to `listen`, and the runtime; writes what the runtime sends."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy_to: Path | None) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            if copy_to is not None:
                with copy_to.open("ab") as out:
                    out.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        runtime_reader, runtime_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(copy(reader, runtime_writer, None), copy(runtime_reader, writer, file))

    async with await asyncio.start_unix_server(accept, listen) as server:
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "refuse":
        asyncio.run(refuse(Path(sys.argv[2]), sys.argv[3]))
    else:
        asyncio.run(record(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
