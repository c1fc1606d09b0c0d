"""A real API process told to stop under load: no request may be lost, and the exit code is 0."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn

from energy_forecast.api import create_app
from energy_forecast.drain import DrainingServer
from energy_forecast.service import Service

DRAIN_SECONDS = 0.6


@dataclass
class Process:
    """The API in a process of its own; its output goes to `log`."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)


@dataclass
class Hammer:
    """A keep-alive client that sends one request after the other until nobody listens any more."""

    process: Process
    answered: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    failures: list[str] = field(default_factory=list)
    refused_at: float | None = None

    def run(self) -> None:
        connection = self.process.connect()
        while self.refused_at is None and not self.failures:
            try:
                if connection.sock is None:
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        self.refused_at = time.monotonic()
                        return
                connection.request("GET", "/version")
                response = connection.getresponse()
                response.read()
                self.answered[response.status] += 1
                if response.getheader("connection") == "close":
                    self.closed += 1
                    connection.close()
            except Exception as error:
                self.failures.append(repr(error))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def process(tree: Path, tmp_path: Path, demand_file: Path) -> Iterator[Process]:
    port = free_port()
    environment = {
        **os.environ,
        "API_PORT": str(port),
        "DATABASE_URL_FILE": str(tmp_path / "no-database"),
        "DEMAND_FILE": str(demand_file),
        "DRAIN_SECONDS": str(DRAIN_SECONDS),
        "PYTHONPATH": str(tree),
    }
    environment.pop("FLAGS_FILE", None)
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "energy_forecast.api"]
        popen = subprocess.Popen(command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT)
    started = Process(popen=popen, port=port, log=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert popen.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield started
    finally:
        popen.kill()
        popen.wait()


def test_a_stop_under_load_loses_no_request(process: Process) -> None:
    hammers = [Hammer(process) for _ in range(4)]
    threads = [threading.Thread(target=hammer.run) for hammer in hammers]
    for thread in threads:
        thread.start()
    while sum(hammer.answered.total() for hammer in hammers) < 100:
        assert not any(hammer.failures for hammer in hammers)
        time.sleep(0.01)
    # A request that outlasts the drain: the pool waits two seconds for the database that is not there.
    slow = process.connect()
    time_of_signal = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    while time.monotonic() < time_of_signal + DRAIN_SECONDS / 2:
        time.sleep(0.01)
    slow.request("GET", "/v1/readings")
    for thread in threads:
        thread.join(timeout=20)
    assert [hammer.failures for hammer in hammers] == [[]] * 4
    for hammer in hammers:
        assert set(hammer.answered) == {200}
        # More than one connection was told to go: the process went on accepting while it drained.
        assert hammer.closed > 1
        assert hammer.refused_at is not None
        assert hammer.refused_at - time_of_signal >= DRAIN_SECONDS
    answer = slow.getresponse()
    assert (answer.status, b"no connection to the database" in answer.read()) == (503, True)
    assert process.popen.wait(timeout=20) == 0
    assert '"event": "stopped"' in process.log.read_text()


def test_a_connection_made_at_the_last_moment_is_still_served(process: Process) -> None:
    made = [process.connect()]
    made[0].connect()
    process.popen.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while True:
        late = process.connect()
        try:
            late.connect()
        except ConnectionRefusedError:
            break
        made.append(late)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Nobody listens any more; the oldest and the newest of those who came in time have yet to ask.
    assert len(made) > 2
    for connection in (made[0], made[-1]):
        connection.request("GET", "/version")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
    for connection in made:
        connection.close()
    assert process.popen.wait(timeout=20) == 0


def test_a_connection_that_nobody_has_accepted_yet_is_served(service: Service) -> None:
    async def run() -> bytes:
        config = uvicorn.Config(create_app(service), http="h11", log_config=None)
        config.load()
        server = DrainingServer(config, service.drain, 0)
        server.lifespan = config.lifespan_class(config)
        listener = socket.create_server(("127.0.0.1", 0))
        await server.startup(sockets=[listener])
        service.drain.begin()
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            # The kernel has the connection and the request; the loop does not run before the listener is to close.
            client.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
            await server.shutdown([listener])
            return client.recv(65536)

    answer = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer
