"""What `dev` starts in its tests instead of the agent: a plugin that registers again when its stream ends.

Takes the options that `dev` gives to `run`, and tells what to do in the tests after them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import grpc

from tests.devkubelet.support import TinyPlugin


async def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--device-plugin-dir", "--run-dir", "--state-dir"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--end-with", type=int)
    parser.add_argument("--stubborn", action="store_true")
    given = parser.parse_args()
    if given.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("pod resources:", os.environ.get("KATA_NODE_AGENT_KUBELET_POD_RESOURCES_SOCKET"), flush=True)
    print("\x1b[2Jno cursor moves", file=sys.stderr, flush=True)
    if given.end_with is not None:
        return int(given.end_with)
    for number in range(1000):
        # As the agent does: a fresh name each time, and served before it is registered.
        plugin = TinyPlugin(given.device_plugin_dir, f"stand-in-{os.getpid()}-{number}.sock")
        with contextlib.suppress(grpc.aio.AioRpcError, RuntimeError):
            await plugin.serve()
            await plugin.register()
            await asyncio.sleep(0.2)
            while plugin.streams:
                await asyncio.sleep(0.02)
        await plugin.stop()
        await asyncio.sleep(0.02)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
