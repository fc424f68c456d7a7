"""What survives a restart of kubelet: pods, what they hold, which resources were known. One small JSON file.

The real kubelet keeps the devices in `kubelet_internal_checkpoint`, and has pods from the API server or from
files; here both are in one file of another name, so that nobody takes it for the real one.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.devkubelet.state import Container, Holding, Pod

FILE_NAME = "devkubelet_checkpoint"
_POD_TEXTS = ("namespace", "name", "uid", "resource", "phase", "reason", "message")


@dataclass(frozen=True)
class Checkpoint:
    """The file's content."""

    pods: tuple[Pod, ...] = ()
    holdings: tuple[Holding, ...] = ()
    resources: tuple[str, ...] = ()


def write(directory: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file as a whole: a kill at any moment leaves the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=".checkpoint-", dir=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(checkpoint), file)
    Path(temporary).replace(directory / FILE_NAME)


def read(directory: Path) -> Checkpoint:
    """Reads the file; empty where there is none.

    Raises:
        ValueError: it is no checkpoint. OSError: it cannot be read.
    """
    try:
        text = (directory / FILE_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Checkpoint()
    try:
        data = json.loads(text)
        return Checkpoint(
            pods=tuple(_pod(entry) for entry in data["pods"]),
            holdings=tuple(_holding(entry) for entry in data["holdings"]),
            resources=tuple(str(name) for name in data["resources"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error


def _pod(entry: dict[str, Any]) -> Pod:
    containers = tuple(Container(str(item["name"]), int(item["count"])) for item in entry["containers"])
    return Pod(
        containers=containers,
        overhead=int(entry["overhead"]),
        **{name: str(entry[name]) for name in _POD_TEXTS},
    )


def _holding(entry: dict[str, Any]) -> Holding:
    device_ids = tuple(str(id_) for id_ in entry["device_ids"])
    return Holding(str(entry["pod"]), str(entry["container"]), str(entry["resource"]), device_ids)
