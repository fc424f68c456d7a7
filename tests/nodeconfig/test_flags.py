from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.nodeconfig import merge
from kata_node_agent.nodeconfig.flags import parse_flags


def test_both_spellings_of_flags_and_underscores() -> None:
    flags = parse_flags(
        [
            "--v",
            "2",
            "--config",
            "/a",
            "--config_dir=/b",
            "--max_pods",
            "5",
            "--cgroup-root",
            "--",
            "--max-pods=6",
        ]
    )
    assert (flags.config, flags.config_dir, flags.problems) == ("/a", "/b", ())
    assert flags.fields == {"maxPods": (6, "max-pods"), "cgroupRoot": ("--", "cgroup-root")}


@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.builds(
                lambda name, value: f"--{name}={value}",
                st.sampled_from(
                    ["system-reserved", "eviction-hard", "max-pods", "enforce-node-allocatable", "config"]
                ),
                st.text("memory.available=<,1Gi%-", max_size=20),
            ),
        ),
        max_size=6,
    )
)
def test_any_command_line_is_read(arguments: list[str]) -> None:
    flags = parse_flags(arguments)
    merge.finish(merge.with_flags(merge.defaults(), flags.fields, 1))
