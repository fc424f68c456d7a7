"""The one tree of errors that a user may meet: each says what, with a stable reason, and what to do.

Nothing else is caught at the top: any other exception is a fault of ours and ends with a traceback in the log.
"""

from __future__ import annotations


class AgentError(Exception):
    """Something a person can act on.

    Attributes:
        reason: stable CamelCase name, as in Kubernetes conditions.
        message: one line; what happened, with the value or path at fault.
        hint: one line; what to do about it. May be empty.
        exit_code: of a program that ends by it.
    """

    reason = "Error"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if reason:
            self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(AgentError):
    """Our configuration, or an option, cannot be used as written."""

    reason = "InvalidConfiguration"


class HostError(AgentError):
    """A fact of the host could not be read, or does not make sense."""

    reason = "HostUnreadable"


class QuantityError(AgentError):
    """A text is not a Kubernetes quantity."""

    reason = "InvalidQuantity"


class BusyError(AgentError):
    """Another process holds what only one may hold: the run directory, or the plugin directory and resource."""

    reason = "AlreadyRunning"


class SocketError(AgentError):
    """A Unix socket cannot be served or reached."""

    reason = "SocketUnusable"


class CertificateError(AgentError):
    """A certificate, its key or the authorities to trust cannot be used as they are."""

    reason = "CertificateUnusable"


class StartAnewError(AgentError):
    """The agent cannot go on, and will be well when it is started anew at once: EX_TEMPFAIL of sysexits.h."""

    reason = "StartAnew"
    exit_code = 75


class NriError(AgentError):
    """The container runtime's NRI socket cannot be used, or not as it is."""

    reason = "NriUnusable"


class LedgerError(AgentError):
    """The record of admissions cannot be read or written: nothing can be promised."""

    reason = "LedgerUnavailable"


def describe_os_error(error: OSError) -> str:
    """The system's words for an errno, without Python's repr around it: ``Permission denied (EACCES)``."""
    import errno

    if error.errno is None:
        return str(error)
    name = errno.errorcode.get(error.errno, f"errno {error.errno}")
    return f"{error.strerror or 'error'} ({name})"


def first_in(group: BaseExceptionGroup[AgentError]) -> AgentError:
    """The first error of a group that holds nothing else, whatever groups it is in."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)  # noqa: S101 - the group holds nothing else
    return error
