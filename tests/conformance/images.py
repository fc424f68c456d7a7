"""A container image from a static busybox, without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PAUSE, BUSYBOX = "localhost/pause:1", "localhost/busybox:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BUSYBOX = Path("/bin/busybox")


def write_images(folder: Path) -> list[Path]:
    """Both images as archives that `ctr images import` takes."""
    if not _BUSYBOX.exists():
        raise FileNotFoundError("busybox-static is needed: apt install busybox-static")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(_BUSYBOX, "bin/busybox")
        for name in ("sh", "sleep", "env"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return [
        write_image(
            folder / f"{name.partition(':')[0].rpartition('/')[2]}.tar",
            name,
            layer.getvalue(),
            # The first process of a container hears no other signal; CRI-O would wait for its end.
            {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"], "StopSignal": "SIGKILL"},
        )
        for name in (PAUSE, BUSYBOX)
    ]


def write_image(path: Path, name: str, layer: bytes, settings: Mapping[str, object]) -> Path:
    """An image of one layer, as an archive; `settings` are what a container of it runs, and with which environment."""
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for entry, content in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
