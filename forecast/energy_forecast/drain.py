"""Leaving without losing a request.

On SIGTERM the process stays a full member for `DRAIN_SECONDS`: it accepts connections, answers everything with
`Connection: close`, and tells `/readyz` that it leaves, so balancers and keep-alive clients go elsewhere by themselves.
Only then it stops listening, finishes what is in flight and exits with 0. The header itself is set by `observe`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from energy_forecast.errors import SettingsError
from energy_forecast.logs import log

LOGGER = logging.getLogger(__name__)

_FIRST_REQUEST_SECONDS = 2.0
# Longer than clients and proxies keep an idle connection: the side that closes first must be the one that sends.
_KEEP_ALIVE_SECONDS = 75
_FINISH_SECONDS = 20


class Drain:
    """Whether this process is on its way out, and since when (monotonic seconds)."""

    def __init__(self) -> None:
        self.since: float | None = None

    @property
    def active(self) -> bool:
        """True from the signal on."""
        return self.since is not None

    def begin(self) -> None:
        """Start leaving; a second call changes nothing."""
        if self.since is None:
            self.since = time.monotonic()


class DrainingServer(uvicorn.Server):
    """uvicorn's server with its signal handling replaced by a drain of `seconds`; SIGINT during it ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, on SIGTERM or SIGINT; uvicorn would raise them again at the end instead of exiting with 0."""
        if self._drain.active and sig == signal.SIGINT:
            self.should_exit = True
        self._drain.begin()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the serving."""
        if self._drain.since is not None:
            # Not in the signal's handler, which may have interrupted another line of the log.
            if not self._told:
                self._told = True
                log(LOGGER, logging.INFO, "draining", seconds=self._seconds)
            if time.monotonic() - self._drain.since >= self._seconds:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and finish what was begun, including requests of connections that were just made."""
        # What the kernel has connected but nobody has accepted yet would be reset with the listener.
        accepted = [connection for listener in sockets or [] for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        deadline = time.monotonic() + _FIRST_REQUEST_SECONDS
        while time.monotonic() < deadline and any(self._fresh()):
            await asyncio.sleep(0.01)
        log(LOGGER, logging.INFO, "stopped_listening", connections=len(self.server_state.connections))
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _fresh(self) -> Iterator[object]:
        # uvicorn closes a connection without a running request at once, but one made a moment ago has a request coming.
        return (each for each in self.server_state.connections if getattr(each, "cycle", None) is None)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        yield connection


def serve(app: ASGIApp, port: int, drain: Drain, seconds: float) -> None:
    """Serve `app` on all addresses until SIGTERM, then drain for `seconds`.

    Raises `SettingsError` when the port cannot be had.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    # The socket is made here, because the drain accepts from it to the last.
    try:
        listener = socket.create_server(("0.0.0.0", port), backlog=config.backlog)  # noqa: S104 - a pod has one address
    except OSError as error:
        raise SettingsError(
            f"port {port} cannot be listened on: {error.strerror}; set API_PORT or WORKER_PORT"
        ) from error
    DrainingServer(config, drain, seconds).run(sockets=[listener])
