"""Builds what a declarative pyproject.toml cannot: the cffi extension and the protobuf code.

Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PB = "kata_node_agent/pb"
# The folder of each .proto file; all of them become modules of one flat package.
PROTO_DIRS = (
    "proto/kata_node_agent/v1",
    "proto/deviceplugin/v1beta1",
    "proto/podresources/v1",
    "proto/nri/v1alpha1",
    "proto/ttrpc",
)


def generate_protobuf() -> None:
    """Writes agent/kata_node_agent/pb/*_pb2.py, *_pb2.pyi and *_pb2_grpc.py from proto/."""
    import grpc_tools
    from grpc_tools import protoc

    includes = [f"-I{PB}={directory}" for directory in PROTO_DIRS]
    includes.append(f"-I{os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')}")
    files = sorted(
        f"{PB}/{path.name}" for directory in PROTO_DIRS for path in Path(directory).glob("*.proto")
    )
    outputs = [f"--{kind}_out=agent" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *includes, *outputs, *files]):
        sys.exit("setup.py: protoc failed; its message is above")


class BuildPy(build_py):
    """Generates the protobuf code in the source tree first, so that editable installs have it too."""

    def run(self) -> None:
        generate_protobuf()
        super().run()


class BdistWheel(bdist_wheel):
    """Tags the wheel for the stable ABI: one wheel serves every Python >= 3.11."""

    def finalize_options(self) -> None:
        self.py_limited_api = "cp311"
        super().finalize_options()


def data_files() -> list[tuple[str, list[str]]]:
    """What an installation has below its share/: documents, examples and, made by `make dist`, manual and completion."""
    places = {
        "generated/man/man1/*": "man/man1",
        "generated/man/man5/*": "man/man5",
        "generated/completion/bash/*": "bash-completion/completions",
        "generated/completion/zsh/*": "zsh/site-functions",
        "generated/completion/fish/*": "fish/vendor_completions.d",
        "systemd/*.*": "kata-node-agent/systemd",
        "systemd/*/*": "kata-node-agent/systemd/{parent}",
        "packages/selinux/*": "kata-node-agent/selinux",
        "deploy/*/*": "kata-node-agent/{parent}",
        "*.md": "doc/kata-node-agent",
        "docs/*.md": "doc/kata-node-agent/docs",
    }
    found: dict[str, list[str]] = {}
    for pattern, place in places.items():
        for path in sorted(Path().glob(pattern)):
            if path.is_file():
                found.setdefault("share/" + place.format(parent=path.parent.name), []).append(str(path))
    return sorted(found.items())


os.chdir(ROOT)
setup(
    data_files=data_files(),
    cffi_modules=["native/build.py:ffibuilder"],
    cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel},
)
