"""The first looks: who waits for which of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from kata_node_agent.daemon.beginning import Beginning


class Looks:
    """Stand-ins of the parts that are looked at; memory takes until it is let go."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()
        self.account: Any = SimpleNamespace(
            sandboxes=SimpleNamespace(look=self.note("vms")), first_look=self._memory
        )
        self.node: Any = SimpleNamespace(look=self.note("node"), look_soon=lambda: None)
        self.pods: Any = SimpleNamespace(ask=self.note("pods"))
        self.slots: Any = SimpleNamespace(holdings_changed=lambda: None, replan=lambda: None)

    def note(self, name: str) -> Any:
        async def look(**_: object) -> None:
            self.done.append(name)

        return look

    async def _memory(self) -> None:
        await self.go.wait()
        self.done.append("memory")


def test_kubelet_is_told_before_memory_is_read_and_the_runtime_is_not_called_before() -> None:
    """A pod of a handler that is not known to be Kata's yet would be left out of the runtime's only list."""

    async def scenario() -> None:
        looks = Looks()
        beginning = Beginning(looks.node, looks.pods, looks.account, looks.slots)
        await beginning.look(asyncio.Event())
        assert set(looks.done) == {"node", "pods", "vms"}
        called = asyncio.create_task(beginning.then(looks.note("runtime")))
        await asyncio.sleep(0.05)
        assert not called.done()
        looks.go.set()
        await called
        assert looks.done[-2:] == ["memory", "runtime"]

    asyncio.run(scenario())
