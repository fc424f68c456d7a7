"""Builds the RPM from the tree that packages/tree.py makes.

    /usr/bin/python3 packages/rpm.py build/tree dist

With SOURCE_DATE_EPOCH set, the same tree gives the same package. Only the standard library is used here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path

SPEC = Path(__file__).resolve().parent / "kata-node-agent.spec"
# Folders that are the package's own: what is left empty of them goes with it. All others are the system's.
OWN_FOLDERS = re.compile(r"/(etc|usr/(lib|share|share/doc|share/licenses))/kata-node-agent(/|$)")


def main() -> None:
    """Entry point of the script; prints the path of the package."""
    parser = argparse.ArgumentParser(
        description="Build the RPM from the tree of the self-contained packages."
    )
    parser.add_argument("tree", type=Path, help="what packages/tree.py made")
    parser.add_argument("output", type=Path, help="folder for the package")
    arguments = parser.parse_args()
    print(build(arguments.tree.resolve(), arguments.output))


def build(tree: Path, output: Path) -> Path:
    """Runs rpmbuild, in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        file_list = top / "files"
        file_list.write_text("\n".join(list_files(tree)) + "\n")
        provides = top / "bundled"
        provides.write_text("\n".join(bundled(tree)) + "\n")
        macros = {
            "_topdir": str(top),
            "_dbpath": str(top / "db"),  # nothing of the build machine's is asked
            "tree": str(tree),
            "file_list": str(file_list),
            "agent_version": version(tree),
            "bundled": str(provides),
        }
        command = ["rpmbuild", "--quiet", "-bb", "--buildroot", str(top / "root"), str(SPEC)]
        for name, value in macros.items():
            command += ["--define", f"{name} {value}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        (package,) = top.glob("RPMS/*/*.rpm")
        output.mkdir(exist_ok=True)
        target = output / package.name
        target.write_bytes(package.read_bytes())
        return target


def list_files(tree: Path) -> list[str]:
    """The %files section: all of the tree, root's, with the modes of an ordinary system."""
    lines = ["%defattr(0644, root, root, 0755)"]
    for path in sorted(tree.rglob("*")):
        name = f"/{path.relative_to(tree)}"
        if path.is_dir() and not path.is_symlink():
            if OWN_FOLDERS.search(name):
                lines.append(f'%dir "{name}"')
        elif name.startswith("/etc/"):
            lines.append(f'%config(noreplace) "{name}"')
        else:
            lines.append(f'%attr({"0755" if os.access(path, os.X_OK) else "0644"}, root, root) "{name}"')
    return lines


def version(tree: Path) -> str:
    """The agent's version, as the tree's own command says it is."""
    text = next(
        tree.glob("usr/lib/kata-node-agent/python/packages/kata_node_agent-*.dist-info/METADATA")
    ).read_text()
    found = re.search(r"^Version: (\S+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit("the agent's package has no version")
    return found[1]


def bundled(tree: Path) -> list[str]:
    """Provides of all that is inside, for whoever searches packages for a library with a hole."""
    lines = (tree / "usr/share/doc/kata-node-agent/bundled.txt").read_text().splitlines()
    pairs = [line.split() for line in lines if line.startswith("  ")]
    # RPM's versions have no epoch like 1:1.2, and no hyphen but before a release.
    return [
        f"Provides: bundled({name}) = {re.sub('^[0-9]+:', '', text).split('-')[0]}" for name, text in pairs
    ]


if __name__ == "__main__":
    main()
