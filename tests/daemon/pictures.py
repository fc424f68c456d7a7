"""`python -m tests.daemon.pictures [DIR]`: makes the pictures of the page and of commands in docs/pictures, of a real agent, in a
real Chromium and on a terminal.

Needs root, for a host name of its own: a picture of the documentation does not show the machine that it was made on.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kata_node_agent.devkubelet.kubelet import DevKubelet
from tests.daemon.recorded import RecordedNode
from tests.daemon.support import COMMAND, Agent
from tests.daemon.terminal import picture, printed
from tests.publish.browser import chromium
from tests.publish.test_metrics import free_address

# name -> width and height of the window, and whether its owner likes it dark.
PICTURES = {
    "page-light": (1200, 1505, False),
    "page-dark": (1200, 1505, True),
    "page-phone": (390, 844, True),
}
# name -> what is typed. The check is that of a node which everybody has: recorded, with virtualization switched off.
TERMINALS = {
    "check": "kata-node-agent check --snapshot node.json --profile openshift",
    "status": "kata-node-agent status",
    "top": "kata-node-agent top --once",
}
_ELSEWHERE = Path(__file__).parents[1] / "data" / "snapshots" / "amd-firmware-off.json"
# status has longer lines.
_COLUMNS, _LINES = {"check": 84, "status": 112, "top": 84}, 60
_NAMED = ("unshare", "--uts", "sh", "-c", 'hostname worker-3 && exec "$@"', "sh")


async def _make(folder: Path) -> None:
    address = free_address()
    with tempfile.TemporaryDirectory(prefix="kna-") as place:
        node = RecordedNode(Path(place), address)
        async with DevKubelet(node.plugins) as kubelet:
            command = [*_NAMED, *COMMAND, "run", *node.arguments]
            with Agent(node, command, node.environ) as agent:
                await kubelet.wait_for_devices(6, timeout_seconds=30)
                for number in range(1, 5):
                    # One after the other: a device that is not known to be of a pod with a VM takes the room of one.
                    await kubelet.admit("default", f"web-{number}", {"main": 1})
                    await asyncio.to_thread(_wait_for_devices, node, number)
                await asyncio.to_thread(_take, address, folder)
                await asyncio.to_thread(_type, node, folder)
                agent.end()


def _wait_for_devices(node: RecordedNode, count: int) -> None:
    deadline = time.monotonic() + 60
    while (status := node.status())["account"]["devices"] != count or status["free_bytes"] < 4 << 30:
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


def _take(address: str, folder: Path) -> None:
    with chromium() as browser:
        for name, (width, height, dark) in PICTURES.items():
            browser.window(width, height, dark=dark)
            browser.open(f"http://{address}/")
            (folder / f"{name}.png").write_bytes(browser.picture(height))


def _type(node: RecordedNode, folder: Path) -> None:
    """What is shown is what was printed, but for where the test's folders are in place of the real ones."""
    environ = {name: value for name, value in node.environ.items() if name != "NO_COLOR"}
    elsewhere = {
        "check": ["--snapshot", str(_ELSEWHERE), "--profile", "openshift"],
        "status": ["--run-dir", str(node.run_dir)],
        "top": ["--once", "--config", str(node.config), "--host-root", str(node.root)],
    }
    for name, arguments in elsewhere.items():
        said = printed([*COMMAND, name, *arguments], environ, _COLUMNS[name], _LINES)
        said = said.replace(str(node.plugins), "/var/lib/kubelet/device-plugins")
        said = said.replace(str(node.folder), "/var/run/nri")
        drawn = picture(f"# {TERMINALS[name]}\n{said}", TERMINALS[name], _COLUMNS[name])
        (folder / f"{name}.svg").write_text(drawn)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "pictures"
    asyncio.run(_make(where))
    subprocess.run(["ls", "-l", str(where)], check=True)
