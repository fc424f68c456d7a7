"""The DaemonSet's pod, run by the real kubelet and containerd with the real image: privileged for /dev/kvm alone, and that is all it has.

There is no network here that gives pods addresses: the pod uses the host's, and the test asks in the place of kubelet's probes.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conformance.images import write_image
from tests.conformance.support import NODE, RESOURCE, RealNode, free_port, wait_until
from tests.deploy.test_manifests import one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.cluster import Cluster

pytestmark = [pytest.mark.kubelet, pytest.mark.kvm]
FILE = "kubernetes/daemonset.yaml"
NAMESPACE = "/api/v1/namespaces/kata-node-agent"
IMAGE = "localhost/kata-node-agent:1"
# Of capabilities(7): SYS_PTRACE.
CAPABILITIES = 1 << 19


@pytest.fixture(scope="module")
def bare(cluster: Cluster) -> Iterator[RealNode]:
    """A node of the cluster on which no agent runs yet, and that has the image."""
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with (
        tempfile.TemporaryDirectory(prefix="kna-") as folder,
        RealNode(Path(folder), programs, cluster.kubeconfig) as real,
    ):
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(os.environ["PACKAGE_TREE"], "")
        archive = write_image(
            real.folder / "agent.tar", IMAGE, layer.getvalue(), {"Entrypoint": ["/usr/bin/kata-node-agent"]}
        )
        real.import_image(archive)
        real.start_kubelet()
        wait_until(lambda: cluster.node()["status"]["capacity"], "kubelet has made its node", 60)
        yield real


def pod(real: RealNode, health_port: int) -> dict[str, Any]:
    """The pod that the DaemonSet's controller would make, with the test's folders for the host's."""
    template = yaml.safe_load(yaml.safe_dump(one("DaemonSet", FILE)["spec"]["template"]))
    spec = template["spec"]
    folders = {
        "run": real.folder / "run",
        "state": real.folder / "agent-state",
        "device-plugins": real.plugins,
        "nfd-features": real.folder / "etc/kubernetes/node-feature-discovery/features.d",
        "etc": real.folder / "etc",
        "pod-resources": real.folder / "root/pod-resources",
        "nri": real.folder / "nri",
        "kubelet": real.folder / "root",
    }
    for volume in spec["volumes"]:
        if volume["name"] in folders:
            volume["hostPath"]["path"] = str(folders[volume["name"]])
    (real.folder / "etc").mkdir()
    (real.folder / "etc/os-release").write_text(Path("/etc/os-release").read_text())
    (container,) = spec["containers"]
    container["image"], container["imagePullPolicy"] = IMAGE, "Never"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        del container[probe]
    for variable in container["env"]:
        if variable["name"] == "POD_IP":
            del variable["valueFrom"]
            variable["value"] = "127.0.0.1"
        elif variable["name"] == "KATA_NODE_AGENT_HEALTH_TCP_ADDRESS":
            variable["value"] = variable["value"].replace("9440", str(health_port))
    container["ports"] = []
    # Here is no SELinux.
    del container["securityContext"]["seLinuxOptions"]
    spec["hostNetwork"] = True
    metadata = {**template["metadata"], "name": "agent", "namespace": "kata-node-agent"}
    return {"metadata": metadata, "spec": spec}


def test_the_pod_serves_kubelet_with_one_capability_and_nothing_to_write_but_its_own(
    bare: RealNode, cluster: Cluster
) -> None:
    for kind in ("Namespace", "ConfigMap", "ServiceAccount"):
        path = {"Namespace": "/api/v1/namespaces", "ConfigMap": f"{NAMESPACE}/configmaps"}.get(
            kind, f"{NAMESPACE}/serviceaccounts"
        )
        cluster.create(path, one(kind, FILE))
    port = free_port()
    cluster.create(f"{NAMESPACE}/pods", pod(bare, port))

    def events() -> list[str]:
        return [str(each.get("message")) for each in cluster.get(f"{NAMESPACE}/events")["items"]]

    try:
        wait_until(bare.registered, "the agent in the pod is registered", 90)
    except AssertionError:
        print(*events(), bare.log("kubelet"), sep="\n")
        raise
    wait_until(lambda: cluster.allocatable(RESOURCE) > 0, "the node has places for VMs", 60)
    status = bare.status()
    assert status["verdict"] == "eligible", status
    assert status["mode"] == "warn"
    # The pod is in the host's PID namespace, so its number is ours, too.
    proc = Path(f"/proc/{status['pid']}")
    fields = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(fields[name], 16) == CAPABILITIES, name
    mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
    options = {fields[1]: fields[3].split(",") for fields in mounts}
    assert "ro" in options["/"]
    written = {
        path
        for path, each in options.items()
        if "rw" in each and not path.startswith(("/dev", "/proc", "/sys", "/host/"))
    }
    assert written <= {
        "/run/kata-node-agent", "/var/lib/kata-node-agent", "/var/lib/kubelet/device-plugins", "/etc/hosts", "/etc/resolv.conf",
        "/etc/hostname",
    }  # fmt: skip
    probe = [f"{os.environ['CONFORMANCE_BIN']}/grpc-health-probe", f"-addr=127.0.0.1:{port}"]
    for service in ("", "device-plugin", "eligibility", "accounting"):
        done = subprocess.run([*probe, f"-service={service}"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, (service, done.stderr)
    features = bare.folder / "etc/kubernetes/node-feature-discovery/features.d/kata-node-agent.features"
    wait_until(lambda: "katacontainers.io/eligible=true" in features.read_text(), "NFD's file is written")
    assert cluster.get(f"/api/v1/nodes/{NODE}")
