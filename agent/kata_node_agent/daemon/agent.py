"""The running agent: starts its parts in order, keeps them going, ends them.

Order of the start: locks (refuse before anything is touched), the node (so that the first list kubelet sees is true), our
socket, then kubelet. Each part is a task of one group: if one dies of a fault of ours, all end, and systemd starts anew.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

from kata_node_agent.api.server import ApiServer
from kata_node_agent.config.load import Loaded, changes, keep_restart_only
from kata_node_agent.daemon import logs
from kata_node_agent.daemon.account import AccountKeeper
from kata_node_agent.daemon.alive import NodeWatch
from kata_node_agent.daemon.beginning import Beginning
from kata_node_agent.daemon.claims import Claims
from kata_node_agent.daemon.features import FeaturePublisher
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.notify import Notifier
from kata_node_agent.daemon.nri import nri_gate
from kata_node_agent.daemon.overhead import OverheadHistory
from kata_node_agent.daemon.pods import PodWatch
from kata_node_agent.daemon.problem_log import ProblemLog
from kata_node_agent.daemon.pulse import Pulses
from kata_node_agent.daemon.recorder import Recorder
from kata_node_agent.daemon.report import NodeReport
from kata_node_agent.daemon.sandbox_report import sandbox_report
from kata_node_agent.daemon.scrape import http_routes
from kata_node_agent.daemon.serving import serving
from kata_node_agent.daemon.slots import Slots
from kata_node_agent.daemon.status import all_problems, build_status, mode_origin, status_line
from kata_node_agent.daemon.waiting import wait_for_hint
from kata_node_agent.daemon.web import Web
from kata_node_agent.errors import AgentError, StartAnewError, first_in
from kata_node_agent.kubelet.registrar import Registrar, State
from kata_node_agent.kubelet.service import DevicePluginService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.pb import agent_pb2

log = logging.getLogger(__name__)

_PROBE_INTERVAL_SECONDS = 7.0


class Agent:
    """One agent, from `run` until a signal."""

    def __init__(
        self, loaded: Loaded, reload: Callable[[], Loaded], notifier: Notifier | None = None
    ) -> None:
        self._loaded = loaded
        self._reload = reload
        self._notifier = notifier or Notifier()
        self._stop = asyncio.Event()
        self._probe_now = asyncio.Event()
        self._history = History()
        self._pulses = Pulses()
        pulse = self._pulses.pulse
        self._kubelet_pulse = pulse("kubelet")
        self._node = NodeWatch(lambda: self.config, self._history, self._show, pulse("node").beat)
        self._slots = Slots(lambda: self.config, self._node, self._history)
        self._slots.on_plan = self._tell_systemd
        self._features = FeaturePublisher(lambda: self.config, self._node)
        self._report = NodeReport(lambda: self.config, self._node)
        self._started = time.time()
        self._reload_problem: Problem | None = None
        planned = self._slots.replan_soon
        self._account = AccountKeeper(lambda: self.config, self._node, self._history, planned, self._pulses)
        self._nri = nri_gate(lambda: self.config, self._account, self._history)
        device_plugin = self.config.device_plugin
        self._claims = Claims(self.config)
        self._registrar = Registrar(
            device_plugin.directory,
            device_plugin.resource,
            self._new_service,
            on_change=self._kubelet_changed,
            claim=self._claims.renew_resource,
            on_turn=self._kubelet_pulse.beat,
        )
        self._pods = PodWatch(
            lambda: self.config,
            self._slots.table,
            self._slots.holdings,
            self._registrar,
            self._history,
            self._slots.holdings_changed,
            pulse("pods").beat,
        )
        self._beginning = Beginning(self._node, self._pods, self._account, self._slots)
        self._kubelet_state = ""
        self._running = False
        self._sandboxes = sandbox_report(lambda: self.config, self._node, self._account)
        overhead = OverheadHistory(lambda: self.config, self._sandboxes)
        self._recorder = Recorder(lambda: self.config, self._node, overhead)
        calls = (self._report.message, self._account, self._sandboxes)
        self._api = ApiServer(self.config.run_dir, self.status, self.serving, *calls)
        known = (self.status, self._node, self._account, self._report.document, self._sandboxes)
        self._web = Web(lambda: self.config, http_routes(lambda: self.config, *known))

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loaded.config

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT.

        Raises:
            AgentError: it cannot start, or cannot go on, for a reason that a person can mend.
        """
        loop = asyncio.get_running_loop()
        for number, action in {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self.reload,
        }.items():
            loop.add_signal_handler(number, action)
        try:
            self._claims.check()
            self._claims.take()
            self._account.open()
            self._slots.restore(self._account)
            await self._beginning.look(self._stop)
            await self._api.start(self.config.health.tcp_address)
            await self._web.look()
            self._running = True
            mode = {"mode": str(self._account.mode), "mode_origin": mode_origin(self._account)}
            log.info("serving", extra={"socket": str(self._api.path), **mode})
            await self._run_tasks()
        except BaseExceptionGroup as group:
            # Not `except*`: before Python 3.11.4 what is raised in it comes out as a group again.
            ours, others = group.split(AgentError)
            if ours is None or others is not None:
                raise
            raise first_in(ours) from None
        finally:
            self._notifier.stopping()
            await self._api.stop()
            await self._web.stop()
            self._account.close()
            self._claims.release()
            if self._running:
                log.info("stopped")

    def stop(self) -> None:
        """Begins the end."""
        self._stop.set()

    def reload(self) -> None:
        """Takes the configuration anew; a bad one leaves the present one in force."""
        self._notifier.reloading()
        try:
            loaded, waiting = keep_restart_only(self._loaded, self._reload())
        except AgentError as error:
            log.error("not reloaded, the configuration in force stays", extra={"why": str(error)})
            remedy = error.hint or "mend it and reload again"
            self._reload_problem = Problem("ReloadFailed", error.message, remedy)
        else:
            changed = ", ".join(changes(self._loaded, loaded)) or "nothing"
            self._loaded, self._reload_problem = loaded, None
            logs.set_up(loaded.config.log_level)
            log.info("reloaded", extra={"changed": changed})
            if (mode := self._account.mode) is not self.config.mode:
                remedy = "`kata-node-agent mode configured` gives it back to the configuration"
                extra = {"mode": str(mode), "configured": str(self.config.mode), "remedy": remedy}
                log.warning("the mode that was set by command stays", extra=extra)
            if waiting:
                text = ", ".join(waiting)
                log.warning("changed settings take effect at a restart only", extra={"settings": text})
                what = f"changed but not in force: {text}"
                self._reload_problem = Problem("RestartNeeded", what, "restart the agent")
            self._node.look_soon()
            self._web.look_soon()
        if self._running:
            self._notifier.ready()

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(part(), name=part.__qualname__)
                for part in (
                    self._talk_to_kubelet,
                    self._beginning.run,
                    self._node.run,
                    self._node.watch_devices,
                    self._node.watch_kernel,
                    self._features.run,
                    self._recorder.run,
                    self._probe_endpoint,
                    self._pods.run,
                    self._account.run,
                    self._account.sandboxes.run,
                    self._answer_runtime,
                    self._web.run,
                    self._feed_watchdog,
                    self._tell_problems,
                )
            ]
            self._notifier.ready()
            await self._stop.wait()
            log.info("stopping")
            for task in tasks:
                task.cancel()

    async def _talk_to_kubelet(self) -> None:
        await self._claims.wait_for_resource(self._kubelet_pulse.beat)
        await self._registrar.run()

    async def _answer_runtime(self) -> None:
        # Of its first list we keep what is Kata's: by then the handlers must be known.
        await self._beginning.then(self._nri.run)

    def _new_service(self) -> DevicePluginService:
        slots, account = self._slots, self._account
        return DevicePluginService(
            slots.table, slots.holdings, lambda: account.mode, self._allocated,
            account.allocate, account.sandboxes.look_again,
        )  # fmt: skip

    def _allocated(self) -> None:
        """What kubelet sees has not changed much, and the next pod shall not wait for our sums."""
        self._pods.ask_soon()
        self._slots.replan_soon()

    def _show(self) -> None:
        self._slots.replan()
        self._features.publish_soon()

    def _kubelet_changed(self) -> None:
        status = self._registrar.status
        state = "registered" if status.state is State.REGISTERED else "not registered"
        if status.last_error:
            state += f": {status.last_error}"
        if state != self._kubelet_state and (status.registrations or status.last_error):
            self._kubelet_state = state
            self._history.record("kubelet", state)
            if status.state is State.REGISTERED:
                # A kubelet that has just started may have other flags.
                self._node.look_soon()
        self._probe_now.set()
        self._tell_systemd()

    async def _probe_endpoint(self) -> None:
        pulse = self._pulses.pulse("endpoint")
        pulse.beat()
        while True:
            endpoint = self._registrar.endpoint
            if await self._registrar.probe() or endpoint is None or not endpoint.settled:
                pulse.beat()
            if not self._api.in_place:
                await self._serve_again()
            await self._api.look()
            await wait_for_hint(self._probe_now, _PROBE_INTERVAL_SECONDS)

    async def _serve_again(self) -> None:
        if self._api.problem is None:
            log.warning("our socket was removed, serving anew", extra={"socket": str(self._api.path)})
        await self._api.stop()
        try:
            self._claims.renew_run_dir()
            await self._api.start(self.config.health.tcp_address)
        except StartAnewError:
            raise
        except AgentError as error:
            # Tried again with the next probe.
            self._api.fails(error)

    async def _feed_watchdog(self) -> None:
        await self._notifier.feed_watchdog(self._pulses.check)

    def serving(self) -> Mapping[str, bool]:
        """Each health service, and whether it serves at this moment."""
        return serving(self._node, self._pulses, self._registrar, self._account, self._nri)

    def _problems(self) -> list[Problem]:
        api = self._api.problem
        others = (
            self._pulses.problem,
            self._reload_problem,
            self._pods.problem,
            self._features.problem,
            self._recorder.problem,
            self._nri.problem,
            *self._account.problems(),
            *self._web.problems,
            Problem(api.reason, api.message, api.hint) if api is not None else None,
        )
        return all_problems(self._node.view, self._registrar, others)

    async def _tell_problems(self) -> None:
        await ProblemLog().follow(self._problems)

    def status(self) -> agent_pb2.Status:
        """What `kata-node-agent status` shows."""
        return build_status(
            config=self.config,
            view=self._node.view,
            table=self._slots.table,
            registrar=self._registrar,
            problems=self._problems(),
            account=self._account,
            nri=self._nri.message(),
            started=self._started,
            verdict_since=self._node.verdict_since,
            history=self._history,
        )

    def _tell_systemd(self) -> None:
        if self._node.view is not None:
            self._notifier.status(status_line(self._node.view, self._slots.table, self._registrar))
