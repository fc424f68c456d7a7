"""Schemas of the kinds that Kubernetes does not know, each written from its documentation: none is its project's own.

`tests/conformance/test_manifests.py` holds what is deployed against the projects' own, as far as they can be had.
"""

from __future__ import annotations

from typing import Any


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_ANY = {"type": "object"}
_METADATA = _object(["name"], name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS)


def _kind(version: str, kind: str, **spec: Any) -> dict[str, Any]:
    properties = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": _METADATA, **spec}
    return _object(list(properties), **properties)


# Ignition 3.4, "Configuration Specification v3.4.0", as far as a MachineConfig may use it (machine-config-operator, "MachineConfig").
_IGNITION = _object(
    ["ignition"],
    ignition=_object(["version"], version={"const": "3.4.0"}),
    storage=_object(
        [],
        files={
            "type": "array",
            "items": _object(
                ["path", "contents"],
                path={"type": "string", "pattern": "^/(etc|var|opt|usr/local)/"},
                mode={"type": "integer", "minimum": 0, "maximum": 0o777},
                overwrite=_FLAG,
                contents=_object(
                    ["source"], source={"type": "string", "pattern": "^data:"}, compression=_TEXT
                ),
            ),
        },
    ),
    systemd=_object(
        [],
        units={
            "type": "array",
            "items": _object(
                ["name"],
                name=_TEXT,
                enabled=_FLAG,
                mask=_FLAG,
                contents=_TEXT,
                dropins={"type": "array", "items": _object(["name", "contents"], name=_TEXT, contents=_TEXT)},
            ),
        },
    ),
)

# (apiVersion, kind) → schema.
SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    # OpenShift, "MachineConfig [machineconfiguration.openshift.io/v1]".
    ("machineconfiguration.openshift.io/v1", "MachineConfig"): _kind(
        "machineconfiguration.openshift.io/v1",
        "MachineConfig",
        spec=_object(
            ["config"],
            config=_IGNITION,
            kernelArguments={"type": "array", "items": _TEXT},
            extensions={"type": "array", "items": _TEXT},
        ),
    ),
    # OpenShift, "KubeletConfig [machineconfiguration.openshift.io/v1]".
    ("machineconfiguration.openshift.io/v1", "KubeletConfig"): _kind(
        "machineconfiguration.openshift.io/v1",
        "KubeletConfig",
        spec=_object(
            ["machineConfigPoolSelector", "kubeletConfig"],
            machineConfigPoolSelector=_object(["matchLabels"], matchLabels=_TEXTS),
            autoSizingReserved=_FLAG,
            logLevel={"type": "integer"},
            kubeletConfig=_ANY,
        ),
    ),
    # NFD 0.20, "Customization guide"; the operator of OpenShift has the same kind in a group of its own. What is in a rule is held
    # against the documentation by test_nfd.py.
    **{
        (version, "NodeFeatureRule"): _kind(
            version,
            "NodeFeatureRule",
            spec=_object(["rules"], rules={"type": "array", "items": {"type": "object", "required": ["name"]}}),
        )
        for version in ("nfd.k8s-sigs.io/v1alpha1", "nfd.openshift.io/v1alpha1")
    },
    # Prometheus operator, "API reference", monitoring.coreos.com/v1.
    ("monitoring.coreos.com/v1", "PrometheusRule"): _kind(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        spec=_object(
            ["groups"],
            groups={
                "type": "array",
                "items": _object(
                    ["name", "rules"],
                    name=_TEXT,
                    interval=_TEXT,
                    rules={
                        "type": "array",
                        "items": {
                            **_object(
                                ["expr"], alert=_TEXT, record=_TEXT, expr=_TEXT, labels=_TEXTS, annotations=_TEXTS,
                                **{"for": _TEXT, "keep_firing_for": _TEXT},
                            ),
                            "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                        },
                    },
                ),
            },
        ),
    ),
    **{
        ("monitoring.coreos.com/v1", kind): _kind(
            "monitoring.coreos.com/v1",
            kind,
            spec={
                **_object(
                    ["selector", endpoints],
                    selector=_ANY,
                    namespaceSelector=_ANY,
                    jobLabel=_TEXT,
                    attachMetadata=_ANY,
                    **{endpoints: {"type": "array", "items": _ANY}},
                ),
            },
        )
        for kind, endpoints in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints"))
    },
    # Kustomize, "The Kustomization file".
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): _object(
        ["apiVersion", "kind", "resources"],
        apiVersion=_TEXT,
        kind=_TEXT,
        resources={"type": "array", "items": _TEXT},
        images={"type": "array", "items": _object(["name"], name=_TEXT, newName=_TEXT, newTag=_TEXT)},
    ),
}  # fmt: skip
