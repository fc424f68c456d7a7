"""The report as the Node message: the same names, so that the API cannot say other numbers than the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

from kata_node_agent.pb import agent_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping


def as_node(document: Mapping[str, Any]) -> agent_pb2.Node:
    """The message with the document's fields; ``null`` is a field that is not set."""
    return ParseDict(dict(document), agent_pb2.Node())
