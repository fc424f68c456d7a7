"""What is deployed, in the hands of those that read it: the real API server, NFD, Butane and podman's Quadlet."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conformance.support import NODE, end_child, free_port, wait_until
from tests.daemon.support import COMMAND
from tests.deploy.schemas import SCHEMAS
from tests.deploy.test_manifests import DEPLOY, MANIFESTS, one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.cluster import Cluster

pytestmark = pytest.mark.kubelet

_COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
}
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_NFD_FOLDER = "/etc/kubernetes/node-feature-discovery/features.d"
KUBERNETES_OWN = [
    (name, each) for name, each in MANIFESTS if (each["apiVersion"], each["kind"]) not in SCHEMAS
]


def programs() -> Path:
    return Path(os.environ["CONFORMANCE_BIN"])


@pytest.fixture(scope="module")
def with_namespace(cluster: Cluster) -> Cluster:
    cluster.create("/api/v1/namespaces", one("Namespace", "kubernetes/daemonset.yaml"))
    return cluster


@pytest.mark.parametrize(("name", "manifest"), KUBERNETES_OWN, ids=[name for name, _ in KUBERNETES_OWN])
def test_the_api_server_takes_each_object_to_the_letter(
    name: str, manifest: dict[str, Any], with_namespace: Cluster
) -> None:
    if manifest["kind"] == "Namespace":
        assert with_namespace.get(f"/api/v1/namespaces/{manifest['metadata']['name']}")
        return
    path = _COLLECTIONS[manifest["kind"]].format(manifest["metadata"].get("namespace"))
    # Strict: a field that it does not know is refused, and not dropped.
    with_namespace.create(f"{path}?dryRun=All&fieldValidation=Strict", manifest)


def test_the_api_server_refuses_a_field_that_is_misspelt(with_namespace: Cluster) -> None:
    wrong = yaml.safe_load(yaml.safe_dump(one("DaemonSet", "kubernetes/daemonset.yaml")))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    path = _COLLECTIONS["DaemonSet"].format("kata-node-agent")
    with pytest.raises(OSError, match="unknown field"):
        with_namespace.create(f"{path}?dryRun=All&fieldValidation=Strict", wrong)


@pytest.fixture(scope="module")
def nfd(cluster: Cluster) -> Cluster:
    """The API server with NFD's own kinds, and the same in the group that OpenShift's operator gives them."""
    for crd in yaml.safe_load_all((programs() / "nfd-api-crds.yaml").read_text()):
        cluster.create(_CRDS, crd)
        if crd["spec"]["names"]["kind"] == "NodeFeatureRule":
            crd["spec"]["group"], crd["spec"]["scope"] = "nfd.openshift.io", "Namespaced"
            crd["metadata"]["name"] = "nodefeaturerules.nfd.openshift.io"
            cluster.create(_CRDS, crd)
    wait_until(
        lambda: cluster.get("/apis/nfd.openshift.io/v1alpha1/nodefeaturerules"), "the kinds are served"
    )
    wait_until(lambda: cluster.get("/apis/nfd.k8s-sigs.io/v1alpha1/nodefeatures"), "the kinds are served")
    for name in ("openshift-nfd", "node-feature-discovery"):
        cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return cluster


@pytest.mark.parametrize(
    ("file", "collection"),
    [
        ("nodefeaturerule.yaml", "/apis/nfd.k8s-sigs.io/v1alpha1/nodefeaturerules"),
        (
            "nodefeaturerule-openshift.yaml",
            "/apis/nfd.openshift.io/v1alpha1/namespaces/openshift-nfd/nodefeaturerules",
        ),
    ],
)
def test_nfds_own_schema_takes_the_rules_to_the_letter(file: str, collection: str, nfd: Cluster) -> None:
    rule = one("NodeFeatureRule", f"nfd/{file}")
    nfd.create(f"{collection}?dryRun=All&fieldValidation=Strict", rule)


def test_the_machine_config_is_what_butane_makes_of_its_source() -> None:
    root = DEPLOY.parent
    command = [
        programs() / "butane",
        "--strict",
        "--files-dir",
        root / "systemd/quadlet",
        DEPLOY / "openshift/machineconfig.bu",
    ]
    made = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert made == (DEPLOY / "openshift/machineconfig.yaml").read_text()


def test_podmans_quadlet_makes_a_unit_that_systemd_takes(tmp_path: Path) -> None:
    quadlets, units = tmp_path / "quadlets", tmp_path / "units"
    shutil.copytree(DEPLOY.parent / "systemd" / "quadlet", quadlets)
    units.mkdir()
    environment = {**os.environ, "QUADLET_UNIT_DIRS": str(quadlets)}
    command = [str(programs() / "quadlet"), *(str(units),) * 3]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unit = units / "kata-node-agent.service"
    text = unit.read_text()
    assert "Type=notify" in text
    assert "--security-opt label=type:spc_t" in text
    assert "--cap-drop all --cap-add cap_sys_ptrace --read-only" in text
    # A key that Quadlet does not know would stand in none of the options, and be warned of.
    assert "unsupported key" not in done.stderr.lower()
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert "kata-node-agent.service:" not in verified.stderr, verified.stderr


@contextmanager
def _nfd_running(cluster: Cluster, features: Path, folder: Path) -> Iterator[None]:
    """NFD's master and worker; the worker's folder is ours in a mount namespace."""
    environment = {**os.environ, "NODE_NAME": NODE, "KUBERNETES_NAMESPACE": "node-feature-discovery"}
    kubeconfig = ["-kubeconfig", str(cluster.kubeconfig)]
    (folder / "master.conf").write_text("enableTaints: true\n")
    # The worker looks anew each second; by default once a minute, and on changes of the folder.
    (folder / "worker.conf").write_text(
        "core: {sleepInterval: 1s, featureSources: [local], labelSources: [local]}\n"
    )
    bound = f'mkdir -p {folder}/empty {folder}/upper; mount -t tmpfs tmpfs /etc/kubernetes 2>/dev/null || {{ mkdir -p /etc/kubernetes; mount -t tmpfs tmpfs /etc/kubernetes; }}; mkdir -p {_NFD_FOLDER}; mount --bind {features} {_NFD_FOLDER}; exec "$@"'
    master = [
        str(programs() / "nfd-master"), *kubeconfig, "-config", str(folder / "master.conf"), "-port", str(free_port()),
        "-resync-period", "1s",
    ]  # fmt: skip
    worker = [
        "unshare", "--mount", "sh", "-c", bound, "sh", str(programs() / "nfd-worker"), *kubeconfig,
        "-config", str(folder / "worker.conf"), "-port", str(free_port()), "-no-owner-refs",
    ]  # fmt: skip
    children = []
    try:
        for name, command in (("nfd-master", master), ("nfd-worker", worker)):
            with open(folder / f"{name}.log", "ab") as log:
                children.append(
                    subprocess.Popen(
                        command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                    )
                )
        yield
    except BaseException:
        print(*(path.read_text(errors="replace")[-3000:] for path in folder.glob("nfd-*.log")))
        raise
    finally:
        for child in children:
            end_child(child)


def test_the_real_nfd_labels_taints_and_sets_the_ceiling_and_lets_what_lapses_go(
    nfd: Cluster, tmp_path: Path
) -> None:
    # As kubelet makes it: with labels, annotations and a capacity, which NFD's patches count on.
    given = {"kubernetes.io/hostname": NODE}
    nfd.create("/api/v1/nodes", {"metadata": {"name": NODE, "labels": given, "annotations": {"a": "b"}}})
    nfd.extend_node("cpu", 2)
    nfd.create(
        "/apis/nfd.k8s-sigs.io/v1alpha1/nodefeaturerules", one("NodeFeatureRule", "nfd/nodefeaturerule.yaml")
    )
    host, features = tmp_path / "host", tmp_path / "host" / "features.d"
    (host / "dev").mkdir(parents=True)
    features.mkdir()
    for name in ("proc", "sys"):
        (host / name).symlink_to(f"/{name}")
    (host / "dev" / "kvm").symlink_to("/dev/kvm")
    (host / "etc").mkdir()
    config = tmp_path / "c.toml"

    def label(*words: str, settings: str = "") -> None:
        config.write_text(
            f'[nfd]\nfeatures_dir = "/features.d"\nexpiry_seconds = 60\nlabel = "always"\n{settings}'
        )
        command = [*COMMAND, "label", *words, "--config", str(config), "--host-root", str(host)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode in {0, 1}, done.stderr

    def labels() -> dict[str, str]:
        found = nfd.node()["metadata"].get("labels", {})
        assert isinstance(found, dict)
        return found

    def taints() -> list[str]:
        return [each["key"] for each in nfd.node()["spec"].get("taints", [])]

    with _nfd_running(nfd, features, tmp_path):
        label("apply", settings='[eligibility]\nprofile = "upstream"\n')
        wait_until(
            lambda: labels().get("feature.node.kubernetes.io/runtime.kata") == "true",
            "the label says true",
            60,
        )
        assert labels()["katacontainers.io/eligible"] == "true"
        assert taints() == []
        label("ceiling", "--set", "7")
        wait_until(
            lambda: nfd.node()["status"]["capacity"]["katacontainers.io/sandbox-overhead"] == "7",
            "the ceiling is 7",
            60,
        )
        # Not eligible now.
        (host / "dev" / "kvm").unlink()
        label("apply", settings='[eligibility]\nprofile = "upstream"\n')
        wait_until(
            lambda: labels().get("feature.node.kubernetes.io/runtime.kata") == "false",
            "the label says false",
            60,
        )
        wait_until(lambda: taints() == ["katacontainers.io/ineligible"], "the taint is there")
        # Nobody renews it.
        wait_until(lambda: "katacontainers.io/eligible" not in labels(), "what was published has lapsed", 100)
        wait_until(lambda: taints() == [], "the taint is gone")
        assert nfd.node()["status"]["capacity"]["katacontainers.io/sandbox-overhead"] == "7"
