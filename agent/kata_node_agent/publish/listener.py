"""Who may connect over HTTP, and how many at a time: one listening socket, a thread a connection, bounds on all of them.

A peer that connects and is silent must not keep another from a scrape: who has not asked in time is hung up on, and so is the
one that has waited longest when there are too many. Each listener has bounds of its own, so that nobody on the network closes
the Unix socket to root. What is spoken on a connection is not known here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

from kata_node_agent.errors import SocketError, describe_os_error
from kata_node_agent.sockets import check_tcp_permitted, give_to_group, make_room

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
# Those that the system holds until they are accepted; a Unix socket refuses more at once.
_BACKLOG = 128
# For the TLS handshake and the whole request; and for the answer, of which a slow node's report takes most.
ASK_SECONDS = 5.0
ANSWER_SECONDS = 30.0
_OVERDUE_EVERY_SECONDS = 0.25
_NO_FILES_PAUSE_SECONDS = 0.2
_STOP_SECONDS = 2.0


class Connection:
    """One peer. `socket` may be another one once TLS is spoken on it."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self.waiting = True
        self.deadline = time.monotonic() + ASK_SECONDS
        self.thread: threading.Thread | None = None

    def asked(self) -> None:
        """The request is there; from now on the answer is waited for."""
        self.waiting = False
        self.deadline = time.monotonic() + ANSWER_SECONDS

    def hang_up(self) -> None:
        """Wakes whoever reads or writes; TLS' own shutdown would go on talking."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Listener:
    """Accepts on a socket, from the beginning until `stop`."""

    def __init__(self, listening: socket.socket, serve: Callable[[Connection], None], name: str) -> None:
        """Starts at once.

        Args:
            listening: bound and listening; belongs to the listener from now on.
            serve: talks to one peer; blocking, on a thread of its own. It need not close.
            name: for the threads.
        """
        listening.setblocking(False)  # who connects may have gone before it is accepted
        self._listening = listening
        self._serve = serve
        self._lock = threading.Lock()
        self._open: list[Connection] = []  # the oldest first
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; answers that are under way have a moment."""
        self._waker.close()
        self._thread.join()
        self._wake.close()
        self._listening.close()
        with self._lock:
            left = list(self._open)
        deadline = time.monotonic() + _STOP_SECONDS
        for connection in left:
            if connection.waiting:
                connection.hang_up()
            if connection.thread is not None:
                connection.thread.join(max(0.0, deadline - time.monotonic()))
            connection.hang_up()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = selector.select(_OVERDUE_EVERY_SECONDS if self._open else None)
                if any(key.fileobj is self._wake for key, _ in ready):
                    return
                self._end_overdue()
                if ready and not self._accept():
                    time.sleep(_NO_FILES_PAUSE_SECONDS)

    def _accept(self) -> bool:
        """Takes one peer; false where the system has nothing left to take it with."""
        try:
            peer, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return True
        except OSError as error:
            log.debug("cannot accept", extra={"why": describe_os_error(error)})
            return False
        connection = Connection(peer)
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                silent = next((each for each in self._open if each.waiting), None)
                if silent is None:
                    peer.close()
                    return True
                self._open.remove(silent)
                silent.hang_up()
            self._open.append(connection)
        thread = threading.Thread(
            target=self._talk, args=(connection,), daemon=True, name=self._thread.name + "-peer"
        )
        connection.thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._end(connection)
            return False
        return True

    def _talk(self, connection: Connection) -> None:
        try:
            connection.socket.settimeout(ANSWER_SECONDS)
            self._serve(connection)
        except OSError as error:
            # Gone, hung up on, or no TLS: a peer's matter.
            log.debug("connection ended", extra={"why": describe_os_error(error)})
        finally:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        # Under the lock: nobody may hang up on a number that is another file by then.
        with self._lock:
            with contextlib.suppress(ValueError):
                self._open.remove(connection)
            connection.socket.close()

    def _end_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            for connection in self._open:
                if now > connection.deadline:
                    connection.hang_up()


def listen_on_tcp(address: str, *, hint: str) -> socket.socket:
    """A socket that listens on ``host:port``.

    Raises:
        SocketError: it cannot listen there.
    """
    check_tcp_permitted(address)
    host, _, port = address.rpartition(":")
    try:
        family, *_, where = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # [::] is every address, as for gRPC, and not every one of IPv6.
        every = where[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(where, family=family, backlog=_BACKLOG, dualstack_ipv6=every)
    except OSError as error:
        # A name that is not known has a number of its own, which is no errno.
        why = error.strerror
        if not isinstance(error, socket.gaierror) and error.errno is not None:
            # Python puts the address into the text, which the message has already.
            why = describe_os_error(OSError(error.errno, os.strerror(error.errno)))
        raise SocketError(f"{address}: cannot listen: {why}", hint=hint) from error


def listen_on_unix(path: Path) -> socket.socket:
    """A socket that listens at the path, for root and our group.

    Raises:
        SocketError, BusyError: it cannot be had.
    """
    make_room(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file is made with the mode of the socket: nobody else may connect in the moment before it is given to the group.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SocketError(
            f"{path}: cannot listen: {describe_os_error(error)}", hint="is the folder writable?"
        ) from error
    give_to_group(path, 0o660)
    return listening
