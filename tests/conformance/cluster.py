"""A control plane of etcd, kube-apiserver and kube-scheduler on loopback, and a client for it.

Everybody may do everything: what is tried here is scheduling and admission, not access. There is no controller manager, so the
admission plugins that wait for one (service accounts, taints of a new node) are off.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from tests.conformance.images import BUSYBOX
from tests.conformance.support import NODE, end_child, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The bearer token of the one user there is.
_ADMIN = "conformance"
# Slots that the tests leave the cluster's node.
SLOTS = 4


class Cluster:
    """Runs for as long as it is entered; `kubeconfig` is for a kubelet."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._bin = programs
        self._port, self._etcd_port = free_port(), free_port()
        self.kubeconfig = folder / "kubeconfig"
        self._children: list[subprocess.Popen[bytes]] = []
        self._tls = ssl.create_default_context()
        # The server makes its own certificate.
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def __enter__(self) -> Self:
        try:
            self._write_files()
            self._start_etcd()
            self._start_apiserver()
            self._start(
                "kube-scheduler",
                [self._bin / "kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
                 "--secure-port=0"],
            )  # fmt: skip
        except BaseException:
            print(*(path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log")))
            self.__exit__()
            raise
        return self

    def _write_files(self) -> None:
        user = {"name": "all", "user": {"token": _ADMIN}}
        cluster = {
            "name": "all",
            "cluster": {"server": f"https://127.0.0.1:{self._port}", "insecure-skip-tls-verify": True},
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [user],
            "contexts": [{"name": "all", "context": {"cluster": "all", "user": "all"}}],
            "current-context": "all",
        }
        self.kubeconfig.write_text(json.dumps(config))
        (self.folder / "tokens.csv").write_text(f"{_ADMIN},admin,admin,system:masters\n")
        command = ["openssl", "genrsa", "-out", str(self.folder / "accounts.key"), "2048"]
        subprocess.run(command, check=True, capture_output=True)

    def _start_etcd(self) -> None:
        peer = free_port()
        url = f"http://127.0.0.1:{self._etcd_port}"
        self._start(
            "etcd",
            ["etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
             f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
             f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync"],
        )  # fmt: skip

    def _start_apiserver(self) -> None:
        key = self.folder / "accounts.key"
        self._start(
            "kube-apiserver",
            [self._bin / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
             "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self._port}",
             "--endpoint-reconciler-type=none", "--allow-privileged=true", f"--cert-dir={self.folder}/apiserver", "--authorization-mode=AlwaysAllow",
             f"--token-auth-file={self.folder}/tokens.csv", "--service-cluster-ip-range=10.0.0.0/24",
             "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
             "--service-account-issuer=https://kubernetes.default.svc",
             f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"],
        )  # fmt: skip
        wait_until(lambda: self.get("/api/v1/namespaces/default"), "the API server serves", 90)

    def _start(self, name: str, command: list[Any]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._children.append(
                subprocess.Popen(
                    [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            )

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            end_child(child)

    # objects

    def _call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=10, context=self._tls)
        try:
            headers = {"Authorization": f"Bearer {_ADMIN}", "Content-Type": kind}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise OSError(f"{method} {path}: {answer.status} {content.decode(errors='replace')[:500]}")
        return json.loads(content)

    def get(self, path: str) -> Any:
        """An object or a list."""
        return self._call("GET", path)

    def create(self, path: str, body: object) -> None:
        """Makes an object in the collection."""
        self._call("POST", path, body)

    def node(self) -> Any:
        """The node's object."""
        return self.get(f"/api/v1/nodes/{NODE}")

    def allocatable(self, resource: str) -> int:
        """What the scheduler counts with; 0 where the node does not have it."""
        return int(self.node()["status"]["allocatable"].get(resource, 0))

    def label_node(self, labels: Mapping[str, str | None]) -> None:
        """Sets labels, or with ``None`` takes them off, as NFD's master does."""
        body = {"metadata": {"labels": labels}}
        self._call("PATCH", f"/api/v1/nodes/{NODE}", body, "application/merge-patch+json")

    def extend_node(self, resource: str, count: int) -> None:
        """Sets a plain extended resource in the node's capacity, as NFD's master does for `extendedResources`."""
        body = {"status": {"capacity": {resource: str(count)}}}
        self._call("PATCH", f"/api/v1/nodes/{NODE}/status", body, "application/merge-patch+json")

    def add_pod(
        self,
        name: str,
        *,
        limits: Mapping[str, str] | None = None,
        runtime_class: str | None = None,
        requests: Mapping[str, str] | None = None,
    ) -> None:
        """A pod of one container that sleeps."""
        resources = {"limits": limits or {}, "requests": requests or {}}
        container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "resources": resources}
        spec: dict[str, Any] = {
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        if runtime_class:
            spec["runtimeClassName"] = runtime_class
        metadata = {"name": name, "namespace": "default"}
        self.create("/api/v1/namespaces/default/pods", {"metadata": metadata, "spec": spec})

    def remove_pod(self, name: str) -> None:
        """Deletes a pod and waits until kubelet has ended it."""
        path = f"/api/v1/namespaces/default/pods/{name}"
        self._call("DELETE", path)
        wait_until(lambda: name not in self.pods(), f"{name} is gone")

    def pods(self) -> dict[str, Any]:
        """All pods by name."""
        items = self.get("/api/v1/namespaces/default/pods")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def containers(self) -> dict[str, str]:
        """The container's id of each pod that runs."""
        found = {}
        for name, pod in self.pods().items():
            states = pod["status"].get("containerStatuses", [])
            if pod["status"]["phase"] == "Running" and states and "running" in states[0]["state"]:
                found[name] = str(states[0]["containerID"])
        return found

    def reason(self, name: str) -> str:
        """Why a pod has failed, in one word; empty while it has not."""
        return str(self.pods()[name]["status"].get("reason", ""))

    def why_pending(self, name: str) -> str:
        """What the scheduler says of a pod that it cannot place; empty while it has not said anything."""
        conditions = self.pods()[name]["status"].get("conditions", [])
        return next(
            (str(each["message"]) for each in conditions
             if each["type"] == "PodScheduled" and each["status"] == "False"), ""
        )  # fmt: skip
