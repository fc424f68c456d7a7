"""The page's way to TLS, step by step: the commands that it prints, on folders of the test's own, and a real agent."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.support import Node
from tests.docs.commands import ROOT, in_page
from tests.publish.test_metrics import free_address

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "metrics.md").read_text()
SECTION = PAGE.partition("\n## TLS\n")[2].partition("\n## ")[0]
COMMANDS = [
    command.line for command in in_page("metrics.md", SECTION) if command.program != "kata-node-agent"
]


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.host
def test_the_commands_lead_to_a_scrape_that_only_prometheus_may_make(short_dir: Path) -> None:
    address, etc = free_address(), short_dir / "etc"
    etc.mkdir()

    def here(text: str) -> str:
        return text.replace("/etc/kata-node-agent", str(etc)).replace("0.0.0.0:9441", address)

    making = [line for line in COMMANDS if line.startswith(("openssl", "install"))]
    reloading, scraping = [line for line in COMMANDS if line not in making]
    assert (reloading.split()[0], scraping.split()[0]) == ("systemctl", "curl")
    assert len(making) == 7
    for line in making:
        done = run(here(line), short_dir)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert (etc / "tls.key").stat().st_mode & 0o777 == 0o600
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        (configuration,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
        node.config.write_text(here(configuration))
        agent.reload()
        agent.wait_for("serving metrics", timeout=60)
        assert not [p for p in node.status()["problems"] if p["message"].startswith("metrics:")]
        port = address.rpartition(":")[2]
        scrape = scraping.replace(":9441", f":{port}")
        scrape = scrape.replace("curl ", f"curl --silent --show-error --connect-to ::{address} ")
        done = run(scrape, short_dir)
        assert done.returncode == 0, done.stderr
        assert "\nkata_node_agent_info{" in done.stdout
        assert run(re.sub(r"--cert \S+ --key \S+", "", scrape), short_dir).returncode != 0


@pytest.mark.host
def test_the_unix_socket_is_asked_as_the_page_says(short_dir: Path) -> None:
    (command,) = [each.line for each in in_page("metrics.md", PAGE) if "--unix-socket" in each.line]
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        done = run(command.replace("/run/kata-node-agent", str(node.run_dir)), short_dir)
    assert done.returncode == 0, done.stderr
    assert "\nkata_node_agent_info{" in done.stdout
