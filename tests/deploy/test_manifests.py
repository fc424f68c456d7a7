"""Whatever is deployed is well-formed: Kubernetes' own kinds by its schemas, others by what their documentation says."""

from __future__ import annotations

import base64
import gzip
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import jsonschema
import kubernetes_validate
import pytest
import yaml

from kata_node_agent.config.load import env_name, load, settings
from kata_node_agent.config.schema import Config, Mode
from kata_node_agent.nodeconfig.kubelet import parse_kubelet_settings
from tests.deploy.schemas import SCHEMAS

DEPLOY = Path(__file__).parents[2] / "deploy"
# The newest of which the package has schemas.
KUBERNETES = "1.37"
_OWN_GROUPS = re.compile(r"(v1|(apps|batch|policy)/v1|[a-z]+(\.[a-z]+)*\.k8s\.io/v1)")


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """(file and kind, object) of all that is deployed."""
    return [
        (f"{path.relative_to(DEPLOY)}:{one['kind']}", one)
        for path in sorted(DEPLOY.rglob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
        if isinstance(one, dict) and "kind" in one
    ]


MANIFESTS = manifests()


def one(kind: str, where: str) -> dict[str, Any]:
    (found,) = [each for name, each in MANIFESTS if name == f"{where}:{kind}"]
    return found


@pytest.mark.parametrize(("name", "manifest"), MANIFESTS, ids=[name for name, _ in MANIFESTS])
def test_each_object_is_as_its_schema_has_it(name: str, manifest: dict[str, Any]) -> None:
    key = (manifest["apiVersion"], manifest["kind"])
    if key in SCHEMAS:
        jsonschema.validate(manifest, SCHEMAS[key])
        return
    assert _OWN_GROUPS.fullmatch(manifest["apiVersion"]), (
        f"{key} has no schema: write one from its documentation"
    )
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("where", "kind", "change"),
    [
        ("kubernetes/daemonset.yaml", "DaemonSet", lambda it: it["spec"].update(replica=1)),
        ("kubernetes/runtimeclass.yaml", "RuntimeClass", lambda it: it.pop("handler")),
        ("openshift/kubeletconfig.yaml", "KubeletConfig", lambda it: it["spec"].update(kubeletconfig={})),
    ],
)
def test_the_schemas_refuse_what_is_wrong(where: str, kind: str, change: Any) -> None:
    broken = yaml.safe_load(yaml.safe_dump(one(kind, where)))
    change(broken)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        test_each_object_is_as_its_schema_has_it("", broken)


class TestDaemonSet:
    pod = one("DaemonSet", "kubernetes/daemonset.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    def test_writes_only_what_is_its_own_or_for_it_to_write(self) -> None:
        paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in self.pod["volumes"]}
        written = {
            paths[mount["name"]] for mount in self.container["volumeMounts"] if not mount.get("readOnly")
        }
        assert written == {
            "/run/kata-node-agent",
            "/var/lib/kata-node-agent",
            "/var/lib/kubelet/device-plugins",
            "/etc/kubernetes/node-feature-discovery/features.d",
        }
        assert self.container["securityContext"]["readOnlyRootFilesystem"]

    def test_takes_nothing_of_the_cluster(self) -> None:
        assert self.pod["automountServiceAccountToken"] is False
        assert not [name for name, each in MANIFESTS if "Role" in each["kind"]]

    def test_gives_up_the_capabilities_that_come_with_privileged(self) -> None:
        assert {"name": "KATA_NODE_AGENT_DROP_CAPABILITIES", "value": "true"} in self.container["env"]
        # They would say what is not so.
        assert "capabilities" not in self.container["securityContext"]

    def test_each_variable_of_ours_is_a_setting(self) -> None:
        known = {env_name(key) for key, _ in settings()}
        given = {each["name"] for each in self.container["env"]}
        assert {name for name in given if name.startswith("KATA_NODE_AGENT_")} <= known

    def test_its_configuration_is_valid(self, tmp_path: Path) -> None:
        text = one("ConfigMap", "kubernetes/daemonset.yaml")["data"]["config.toml"]
        (tmp_path / "config.toml").write_text(text)
        assert load(tmp_path / "config.toml", environ={}).config.mode == tomllib.loads(text)["mode"]

    def test_what_is_not_looked_for_below_the_root_is_where_it_is_looked_for(self) -> None:
        mounts = {Path(mount["mountPath"]) for mount in self.container["volumeMounts"]}
        config = Config()
        assert config.device_plugin.directory in mounts
        assert config.kubelet.pod_resources_socket.parent in mounts
        assert config.nri.socket.parent in mounts
        assert {config.run_dir, config.state_dir} <= mounts

    def test_the_taint_of_our_own_does_not_keep_it_off(self) -> None:
        assert {"operator": "Exists"} in self.pod["tolerations"]


def test_the_kubelet_settings_are_what_kubelet_takes_and_the_agent_reads() -> None:
    given = one("KubeletConfig", "openshift/kubeletconfig.yaml")["spec"]["kubeletConfig"]
    head = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    parsed = parse_kubelet_settings(yaml.safe_dump({**head, **given}).encode(), "example")
    assert (parsed.complaints, parsed.problem) == ((), "")
    assert parsed.system_reserved_bytes == 3 << 30
    assert parsed.eviction_hard_memory == "500Mi"


class TestMachineConfig:
    config = one("MachineConfig", "openshift/machineconfig.yaml")["spec"]["config"]

    def files(self) -> dict[str, bytes]:
        """Each file's content by its path, as Ignition writes it."""
        found = {}
        for each in self.config["storage"]["files"]:
            head, _, text = each["contents"]["source"].partition(",")
            content = base64.b64decode(text) if head.endswith(";base64") else unquote_to_bytes(text)
            packed = each["contents"]["compression"] == "gzip"
            found[each["path"]] = gzip.decompress(content) if packed else content
        return found

    def test_brings_the_quadlet_file_as_it_is_shipped(self) -> None:
        shipped = DEPLOY.parent / "systemd" / "quadlet" / "kata-node-agent.container"
        assert self.files()["/etc/containers/systemd/kata-node-agent.container"] == shipped.read_bytes()

    def test_its_configuration_is_valid_and_begins_with_warn(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_bytes(self.files()["/etc/kata-node-agent/config.toml"])
        assert load(tmp_path / "config.toml", environ={}).config.mode is Mode.WARN

    def test_the_image_that_is_pulled_is_the_one_that_is_run(self) -> None:
        (unit,) = self.config["systemd"]["units"]
        assert unit["name"] == "kata-node-agent.service"
        image = re.search(
            "^Image=(.+)$",
            self.files()["/etc/containers/systemd/kata-node-agent.container"].decode(),
            re.MULTILINE,
        )
        assert image is not None
        assert f"podman tag ${{IMAGE}} {image[1]}" in unit["dropins"][0]["contents"]
