"""The page for people: gathers its documents when a browser asks. What it needs is loaded then."""

from __future__ import annotations

import os
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kata_node_agent.api.account import decisions_of
from kata_node_agent.errors import AgentError
from kata_node_agent.publish.http import Answer
from kata_node_agent.publish.page import CONTENT_TYPE, HEADERS, Content, refresh_seconds, render
from kata_node_agent.publish.page.lists import LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.http import Request


class Page:
    """Answers with the page. Blocking, on a connection's thread."""

    def __init__(
        self,
        on_loop: Callable[[Callable[[], dict[str, Any]]], dict[str, Any]],
        status: Callable[[], agent_pb2.Status],
        node: NodeWatch,
        keeper: AccountKeeper,
        report: Callable[[], Mapping[str, Any]],
        sandboxes: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        """Reads nothing.

        Args:
            on_loop: calls a function on the event loop; raises TimeoutError where that is stuck.
            status: of the agent; on the event loop only, as the next two.
            node: for the verdict.
            keeper: for the decisions.
            report: the document of `report`; raises AgentError.
            sandboxes: the document of `sandboxes`, the same; ``None`` where VMs are not followed.
        """
        self._on_loop = on_loop
        self._status = status
        self._node = node
        self._keeper = keeper
        self._report = report
        self._sandboxes = sandboxes
        # As for a scrape: one page at a time reads the node, however many ask.
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        """What is known now. A part that cannot be had is said on the page, and the others stand."""
        with self._lock:
            content, answered = self._gather(refresh_seconds(request.query))
        # The page says so, too; the status is for who only looks at that.
        status = HTTPStatus.OK if answered else HTTPStatus.SERVICE_UNAVAILABLE
        # A lone surrogate, as in the bytes of a name, is no UTF-8.
        return Answer(render(content).encode("utf-8", "replace"), CONTENT_TYPE, status, HEADERS)

    def _gather(self, refresh: int | None) -> tuple[Content, bool]:
        """The content, and whether the event loop answered."""
        unreadable: list[str] = []

        def read(document: Callable[[], Mapping[str, Any]] | None) -> Mapping[str, Any] | None:
            try:
                return document() if document is not None else None
            except AgentError as error:
                unreadable.append(f"{error.reason}: {error}")
                return None

        told: dict[str, Any] = {}
        try:
            told = self._on_loop(self._owned)
        except TimeoutError:
            unreadable.append("the agent's own state: its event loop did not answer in time")
        content = Content(
            node=os.uname().nodename,
            unix_seconds=time.time(),
            report=read(self._report),
            sandboxes=read(self._sandboxes),
            followed=self._sandboxes is not None,
            unreadable=unreadable,
            refresh_seconds=refresh,
            **told,
        )
        return content, bool(told)

    def _owned(self) -> dict[str, Any]:
        """What the event loop owns."""
        view = self._node.view
        try:
            decisions = decisions_of(self._keeper.account, LAST).decisions
        except AgentError:
            # The status has the problem.
            decisions = None
        verdict = view.verdict.to_json() if view is not None else None
        return {"status": self._status(), "verdict": verdict, "decisions": decisions}
