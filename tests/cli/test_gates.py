"""Where the agent can say no, as `status` tells it."""

from __future__ import annotations

from kata_node_agent.cli.gates import gates, gates_line
from kata_node_agent.cli.status import as_json, as_text
from kata_node_agent.pb import agent_pb2 as pb


def status(
    *, kubelet: bool = True, nri: str = "synchronized", why: str = "", mode: str = "enforce"
) -> pb.Status:
    return pb.Status(
        mode=mode,
        kubelet=pb.Kubelet(registered=kubelet, stream_open=kubelet),
        nri=pb.Nri(state=nri, connected=nri == "synchronized", last_error=why),
    )


def test_all_gates_stand_where_kubelet_and_the_runtime_ask() -> None:
    assert [(gate.name, gate.there) for gate in gates(status())] == [
        ("devices", True),
        ("allocate", True),
        ("sandbox", True),
        ("container", True),
    ]
    assert gates_line(status()) == (
        "gates      devices and Allocate at kubelet; sandboxes, containers and resizes at the runtime"
    )


def test_a_node_without_nri_says_what_is_not_limited() -> None:
    without = status(nri="no NRI socket")
    assert [gate.name for gate in gates(without) if not gate.there] == ["sandbox", "container"]
    assert "none at the runtime (no NRI socket): a pod without a device is only counted" in gates_line(
        without
    )
    assert "none at the runtime (off)" in gates_line(status(nri="off"))
    # The reason, where there is one, and not the state.
    assert "(it hung up)" in gates_line(status(nri="connecting", why="it hung up"))


def test_a_kubelet_that_does_not_know_us_is_no_gate() -> None:
    line = gates_line(status(kubelet=False))
    assert line.startswith("gates      none at kubelet: not registered with it; sandboxes")
    shown = status(kubelet=False)
    shown.kubelet.last_error = "UNAVAILABLE: nobody answers"
    # Once is enough: it is the problem that `status` begins with.
    assert "UNAVAILABLE" not in gates_line(shown)
    assert gates(shown)[0].why_not == "UNAVAILABLE: nobody answers"


def test_a_mode_that_refuses_nothing_is_said() -> None:
    assert gates_line(status(mode="warn")).endswith("; mode warn: pods are not refused")
    assert "not refused" not in gates_line(status(mode="off", kubelet=False, nri="off"))


def test_both_forms_of_status_have_them() -> None:
    assert "gates      devices" in as_text(status(), now=0)
    assert as_json(status(nri="off"))["gates"] == [
        {"name": "devices", "there": True, "why_not": ""},
        {"name": "allocate", "there": True, "why_not": ""},
        {"name": "sandbox", "there": False, "why_not": "off"},
        {"name": "container", "there": False, "why_not": "off"},
    ]
