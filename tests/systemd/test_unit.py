import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need

FOLDER = Path(__file__).parents[2] / "systemd"
SERVICE, TIMER = "kata-node-agent.service", "kata-node-agent-retry.timer"
# As systemd-analyze counts it: 0 is a program that may do nothing.
MAX_EXPOSURE = "2.0"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with our units. The command is not installed here; everything else is checked as it is."""
    need("systemd-analyze")
    for name in (SERVICE, TIMER):
        (tmp_path / name).write_text(
            (FOLDER / name).read_text().replace("/usr/bin/kata-node-agent", "/bin/true")
        )
    return tmp_path


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.host
def test_systemd_accepts_the_units(units: Path) -> None:
    assert analyze("verify", "--man=no", *(str(units / name) for name in (SERVICE, TIMER))) == (0, "")


@pytest.mark.host
def test_the_service_is_exposed_little_enough(units: Path) -> None:
    threshold = str(round(float(MAX_EXPOSURE) * 10))
    code, text = analyze(
        "security", "--offline=true", f"--threshold={threshold}", "--no-pager", str(units / SERVICE)
    )
    assert code == 0, text


@pytest.mark.host
@pytest.mark.parametrize("name", [path.name for path in sorted((FOLDER / "examples").iterdir())])
def test_systemd_accepts_the_service_with_each_example(units: Path, name: str) -> None:
    drop_ins = units / f"{SERVICE}.d"
    drop_ins.mkdir()
    shutil.copy(FOLDER / "examples" / name, drop_ins)
    assert analyze("verify", "--man=no", str(units / SERVICE), str(units / TIMER)) == (0, "")


def test_each_line_of_the_sandbox_that_stays_open_is_explained() -> None:
    """What is left out on purpose is named in a comment, with the reason."""
    text = (FOLDER / SERVICE).read_text()
    for left_out in ("PrivateDevices", "ProtectProc", "ProcSubset", "PrivateUsers", "ProtectKernelModules"):
        assert f"\n{left_out}=" not in text
        assert f"{left_out}=" in text, f"{left_out}= is neither set nor explained"
