"""What the real kubelet says, word for word: people search for these lines, and tests compare them.

Only strings and the errors that carry them; nothing here decides anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc import StatusCode

# Go writes status codes in its own way: `ResourceExhausted`, not `RESOURCE_EXHAUSTED`.
_GO_CODES = {"OK": "OK", "CANCELLED": "Canceled"}


class KubeletRefusalError(Exception):
    """Kubelet refuses; the text is kubelet's own. It travels inside a protocol, not to our command line."""


def unsupported_version(version: str, supported: str) -> str:
    """A Register call with another API version."""
    return (
        f'requested API version "{version}" is not supported by kubelet. Supported version is ["{supported}"]'
    )


def invalid_resource_name(name: str) -> str:
    """A Register call with a name that is no extended resource."""
    return f'the ResourceName "{name}" is invalid'


def dial_failed(why: str) -> str:
    """The plugin does not serve at the endpoint that it registered."""
    return f"failed to dial device plugin: {why}"


def options_failed(why: str) -> str:
    """The plugin serves, but not GetDevicePluginOptions."""
    return f"failed to get device plugin options: {why}"


def already_connected(socket: str) -> str:
    """The plugin's stream at this endpoint is still open."""
    return f"device plugin already connected: {socket}"


def rpc_error(code: StatusCode, details: str) -> str:
    """A gRPC error as Go prints it: ``rpc error: code = ResourceExhausted desc = …``."""
    name = _GO_CODES.get(code.name) or "".join(part.capitalize() for part in code.name.split("_"))
    return f"rpc error: code = {name} desc = {details}"


def unregistered(resource: str) -> str:
    """A container asks for a resource that no plugin has shown yet."""
    return f"cannot allocate unregistered device {resource}"


def none_healthy(resource: str) -> str:
    """Devices are known, but none of them is healthy."""
    return f"no healthy devices present; cannot allocate unhealthy devices {resource}"


def too_few(resource: str, requested: int, available: int) -> str:
    """Fewer free healthy devices than a container asks for."""
    return (
        f"requested number of devices unavailable for {resource}. "
        f"Requested: {requested}, Available: {available}"
    )


def endpoint_stopped(endpoint: str) -> str:
    """The stream of the plugin, or of one that registered the same resource, has ended."""
    return f"endpoint {endpoint} has been stopped"


def preferred_failed(why: str) -> str:
    """GetPreferredAllocation failed."""
    return f"device plugin GetPreferredAllocation rpc failed with err: {why}"


def pre_start_failed(why: str) -> str:
    """PreStartContainer failed."""
    return f"device plugin PreStartContainer rpc failed with err: {why}"


def allocate_failed(why: str) -> str:
    """Message of a pod that failed with UnexpectedAdmissionError."""
    return f"Pod was rejected: Allocate failed due to {why}, which is unexpected"


def out_of(resource: str, requested: int, used: int, capacity: int) -> str:
    """Message of a pod that failed with OutOf<resource>."""
    return (
        f"Pod was rejected: Node didn't have enough resource: {resource}, "
        f"requested: {requested}, used: {used}, capacity: {capacity}"
    )
