from kata_node_agent.cli.status import as_json, as_text
from kata_node_agent.pb import agent_pb2 as pb

GIB = 2**30


def status(**changes: object) -> pb.Status:
    answer = pb.Status(
        version="1", pid=7, verdict="eligible", profile="upstream", mode="enforce", resource="katacontainers.io/sandbox",
        started_unix_seconds=1000, verdict_since_unix_seconds=1000,
        slots=pb.Slots(total=11, healthy=9, in_use=2, limited_by="allocatable_memory", limited_by_message="28.9Gi / 2.1Gi a VM = 13"),
        kubelet=pb.Kubelet(registered=True, stream_open=True, since_unix_seconds=1000, registrations=1, socket="/k.sock"),
        memory=pb.Memory(capacity_bytes=32 * GIB, system_reserved_bytes=3 * GIB, allocatable_bytes=29 * GIB, cost_of_one_bytes=2 * GIB),
    )  # fmt: skip
    for name, value in changes.items():
        field = getattr(answer, name)
        field.extend(value) if isinstance(value, list) else field.CopyFrom(value)
    return answer


def test_json_has_the_promised_keys() -> None:
    document = as_json(status())
    assert document["schema"] == "kata-node-agent/status/v1"
    assert {
        "verdict",
        "mode",
        "resource",
        "slots",
        "kubelet",
        "nri",
        "free_bytes",
        "committed_bytes",
        "problems",
    } <= set(document)


def test_text_says_what_limits_and_how_allocatable_comes_about() -> None:
    text = as_text(status(), now=1000 + 3725)
    assert "limited by allocatable_memory: 28.9Gi / 2.1Gi a VM = 13" in text
    assert "allocatable 29Gi = 32Gi − reserved 3Gi" in text
    assert "for 1h 2m" in text


def test_a_node_that_drains_says_so_in_the_first_line() -> None:
    first = as_text(status(account=pb.Account(draining=True)), now=1000).splitlines()[0]
    assert "draining: no new VM is taken" in first
    assert "draining" not in as_text(status(), now=1000)


def test_problems_come_first_each_with_its_remedy() -> None:
    problem = pb.Problem(reason="NotRegistered", message="no kubelet", remedy="start it")
    lines = as_text(status(problems=[problem]), now=1000).splitlines()
    assert "NotRegistered: no kubelet" in lines[0]
    assert "remedy: start it" in lines[1]
