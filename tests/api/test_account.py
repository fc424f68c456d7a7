"""The account over its socket: what is answered, what is a status, what its details say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.api.account import DETAILS
from kata_node_agent.config.schema import Mode
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from tests.api.test_server import Api
from tests.ledger.support import GIB, ONE, OVERHEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Api, Any]]:
    async with Api(folder) as api:
        yield api, agent_pb2_grpc.NodeAgentStub(api.channel)


def run(folder: Path, steps: Callable[[Api, Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(folder) as (api, stub):
            await steps(api, stub)

    asyncio.run(main())


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, Any]:
    """Code, text, and the one message in the details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailer = dict(error.trailing_metadata() or ())[DETAILS]
    assert isinstance(trailer, bytes)
    status = pb.RpcStatus.FromString(trailer)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    (packed,) = status.details
    message = pb.Decision() if packed.TypeName() == "kata_node_agent.v1.Decision" else pb.Problem()
    assert packed.Unpack(message)
    return error.code(), error.details() or "", message


def test_an_admission_is_answered_with_its_numbers_and_listed(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        claim = pb.Claim(sandbox="a", vm_bytes=2 * GIB, pod="default/a", handler="kata")
        decision = await stub.Admit(claim)
        assert (decision.allowed, decision.reason, decision.needs_bytes) == (True, "Fits", ONE.total_bytes)
        assert (await stub.Admit(claim)).reason == "AlreadyAdmitted"
        claim.vm_bytes = 3 * GIB
        assert (await stub.Extend(claim)).needs_bytes == GIB
        api.keeper.account.hold_devices({5: ""})
        listed = await stub.ListAdmissions(pb.ListAdmissionsRequest())
        (one,) = listed.admissions
        assert (one.sandbox, one.origin, one.pod, one.admitted_bytes) == (
            "a",
            "admitted",
            "default/a",
            3 * GIB,
        )
        assert one.commitment_bytes == 3 * GIB + OVERHEAD
        (device,) = listed.devices
        assert (device.id, device.pod) == ("kata-000005", "")
        noted = (await stub.ListDecisions(pb.ListDecisionsRequest())).decisions
        assert [each.what for each in noted] == ["admit", "extend"]
        assert noted[1].change_bytes == GIB
        assert (await stub.VerifyLedger(pb.VerifyLedgerRequest())).problems == []

    run(short_dir, steps)


def test_what_does_not_fit_is_resource_exhausted_with_the_numbers(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        code, text, decision = await refused(stub.Admit(pb.Claim(sandbox="a", vm_bytes=9 * GIB)))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "5Gi free of 5Gi" in text
        assert (decision.reason, decision.needs_bytes) == ("NotEnoughMemory", 9 * GIB + OVERHEAD)
        assert decision.limited_by == "allocatable_memory"
        assert not (await stub.ListAdmissions(pb.ListAdmissionsRequest())).admissions

    run(short_dir, steps)


def test_in_warn_mode_it_is_recorded_as_a_would_be_refusal(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        assert (await stub.SetMode(pb.SetModeRequest(mode="warn"))).mode == "warn"
        decision = await stub.Admit(pb.Claim(sandbox="a", vm_bytes=9 * GIB))
        assert (decision.allowed, decision.would_refuse, decision.reason) == (True, True, "NotEnoughMemory")
        (noted,) = (await stub.ListDecisions(pb.ListDecisionsRequest())).decisions
        assert noted.decision.would_refuse
        (one,) = (await stub.ListAdmissions(pb.ListAdmissionsRequest())).admissions
        assert one.origin == "let-through"

    run(short_dir, steps)


def test_fit_says_how_many_more_and_what_limits_it(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        answer = await stub.Fit(pb.FitRequest())
        assert (answer.count, answer.limited_by, answer.needs_bytes) == (
            2,
            "allocatable_memory",
            ONE.total_bytes,
        )
        answer = await stub.Fit(pb.FitRequest(memory_bytes=4 * GIB))
        assert (answer.count, answer.free_bytes, answer.vm_bytes) == (1, 5 * GIB, 4 * GIB)
        code, _, problem = await refused(stub.Fit(pb.FitRequest(handler="nobody")))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert (problem.reason, problem.remedy) == ("InvalidConfiguration", "there is none")

    run(short_dir, steps)


def test_a_drained_node_refuses_new_vms_as_a_failed_precondition(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        assert (await stub.Drain(pb.DrainRequest(on=True))).draining
        code, _, decision = await refused(stub.Admit(pb.Claim(sandbox="a", vm_bytes=GIB)))
        assert (code, decision.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "Draining")
        assert not (await stub.Drain(pb.DrainRequest(on=False))).draining
        assert (await stub.Admit(pb.Claim(sandbox="a", vm_bytes=GIB))).allowed

    run(short_dir, steps)


def test_what_makes_no_sense_is_an_invalid_argument(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        for claim in (pb.Claim(), pb.Claim(sandbox="a\n"), pb.Claim(sandbox="a", vm_bytes=1 << 60)):
            code, _, decision = await refused(stub.Admit(claim))
            assert (code, decision.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "InvalidClaim")
        code, _, _ = await refused(stub.SetMode(pb.SetModeRequest(mode="sometimes")))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert not (await stub.Release(pb.ReleaseRequest(sandbox="nobody"))).known

    run(short_dir, steps)


def test_a_ledger_that_cannot_be_written_is_unavailable(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        folder = api.keeper.world.path.parent
        away = folder.rename(folder.with_name(folder.name + "-away"))
        code, _, decision = await refused(stub.Admit(pb.Claim(sandbox="a", vm_bytes=GIB)))
        assert (code, decision.reason) == (grpc.StatusCode.UNAVAILABLE, "LedgerUnavailable")
        code, _, problem = await refused(stub.Drain(pb.DrainRequest(on=True)))
        assert (code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "LedgerUnavailable")
        api.keeper.world.mode = Mode.WARN
        assert (await stub.Admit(pb.Claim(sandbox="a", vm_bytes=GIB))).would_refuse
        away.rename(folder)

    run(short_dir, steps)


STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
probe = socket.socket(socket.AF_UNIX)
try:
    probe.connect(sys.argv[1])
except PermissionError:
    print("refused")
else:
    print("let in")
"""


@pytest.mark.host
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which takes root")
def test_another_user_is_not_let_in(short_dir: Path) -> None:
    async def steps(api: Api, stub: Any) -> None:
        # Anybody may reach the folder here: the socket alone keeps strangers out.
        os.chmod(short_dir, 0o711)  # noqa: S103
        command = [sys.executable, "-c", STRANGER, str(api.server.path)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
        assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr
        os.chown(api.server.path, 65534, -1)
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
        assert done.stdout == "let in\n", done.stderr

    run(short_dir, steps)
