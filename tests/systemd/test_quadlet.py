from tests.systemd.quadlet import FILE, KEYS_OF_4_4, sections

SECTIONS = sections(FILE.read_text())
UNIT = sections((FILE.parents[1] / "kata-node-agent.service").read_text())
CAPABILITIES = [value for key, value in UNIT["Service"] if key == "CapabilityBoundingSet"]


def values(key: str) -> list[str]:
    return [value for name, value in SECTIONS["Container"] if name == key]


def volumes() -> list[tuple[str, set[str]]]:
    """Each host path, with the options of its mount."""
    parts = [text.split(":") for text in values("Volume")]
    return [(place, set(",".join(options).split(","))) for place, _, *options in parts]


def test_has_only_keys_that_the_first_podman_with_quadlet_documents() -> None:
    assert {key for key, _ in SECTIONS["Container"]} <= KEYS_OF_4_4
    assert set(SECTIONS) == {"Unit", "Container", "Service", "Install"}


def test_keys_that_podman_reads_once_stand_once() -> None:
    several = {"Volume", "Environment", "PodmanArgs", "AddCapability", "DropCapability"}
    once = [key for key, _ in SECTIONS["Container"] if key not in several]
    assert sorted(once) == sorted(set(once))


def test_all_that_is_of_the_host_is_read_only_but_what_is_named() -> None:
    writable = {place for place, options in volumes() if "ro" not in options}
    assert writable == {
        "/run/kata-node-agent",
        "/var/lib/kata-node-agent",
        "/var/lib/kubelet/device-plugins",
        "/etc/kubernetes/node-feature-discovery/features.d",
    }


def test_nothing_of_the_hosts_is_labelled_anew_but_our_own_folders() -> None:
    labelled = {place for place, options in volumes() if {"z", "Z"} & options}
    assert labelled == {"/run/kata-node-agent", "/var/lib/kata-node-agent"}


def test_keeps_the_capability_that_the_service_keeps() -> None:
    assert values("DropCapability") == ["all"]
    assert values("AddCapability") == CAPABILITIES == ["CAP_SYS_PTRACE"]


def test_each_folder_that_a_volume_needs_is_made_where_a_host_may_lack_it() -> None:
    (made,) = (value.split()[2:] for key, value in SECTIONS["Service"] if key == "ExecStartPre")
    always_there = {"/proc", "/sys", "/dev", "/etc", "/usr", "/opt", "/run", "/var/lib/kubelet"}
    needed = {place for place, _ in volumes()} - always_there
    assert set(made) == needed


def test_is_started_again_for_ever_and_not_too_often() -> None:
    assert ("StartLimitIntervalSec", "0") in SECTIONS["Unit"]
    service = dict(SECTIONS["Service"])
    assert service["Restart"] == "always"
    assert "RestartPreventExitStatus" not in service
    assert int(service["RestartSec"]) >= 5


def test_sees_vms_without_a_policy_module_that_somebody_would_have_to_load() -> None:
    assert values("SecurityLabelType") == ["spc_t"]
