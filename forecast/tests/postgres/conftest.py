"""A database for every test, migrations driven as a release drives them, and real processes of any release."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool


@dataclass(frozen=True, kw_only=True)
class Database:
    """One empty database; `url` is its connection string, `file` holds it."""

    url: str
    file: Path

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(cast(Any, query), values or None).fetchall()

    def run(self, statement: str, *values: object) -> None:
        with self.connect() as connection:
            connection.execute(cast(Any, statement), values or None)

    @property
    def revision(self) -> str | None:
        found = self.rows("SELECT version_num FROM alembic_version")
        return found[0][0] if found else None

    def upgrade(self, tree: Path, target: str, application: str = "migrate-test") -> None:
        """Alembic without env.py, a transaction a migration, short lock timeouts, as the migrate step does."""
        self._migrate(tree, target, application, "_upgrade_revs")

    def downgrade(self, tree: Path, target: str) -> None:
        self._migrate(tree, target, "migrate-test", "_downgrade_revs")

    def _migrate(self, tree: Path, target: str, application: str, plan: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(tree / "migrations"))
        scripts = ScriptDirectory.from_config(config)
        url = make_url(self.url).set(drivername="postgresql+psycopg")
        options = {"options": "-c lock_timeout=2000", "application_name": application}
        engine = create_engine(url, poolclass=NullPool, connect_args=options)
        with EnvironmentContext(config, scripts) as context, engine.connect() as connection:
            context.configure(
                connection=connection,
                fn=lambda revision, _: getattr(scripts, plan)(target, revision),
                transaction_per_migration=True,
            )
            with context.begin_transaction():
                context.run_migrations()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        pytest.fail("set TEST_DATABASE_URL to a PostgreSQL server and a role that may create databases")
    name = f"forecast_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    file = tmp_path / "url"
    file.write_text(url, encoding="utf-8")
    try:
        yield Database(url=url, file=file)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass
class Process:
    """A process of the platform, and its HTTP interface."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def get(self, path: str) -> tuple[int, Any]:
        return self.request("GET", path)

    def post(self, *readings: dict[str, Any]) -> tuple[int, Any]:
        return self.request("POST", "/v1/readings", {"readings": readings})

    def metric(self, name: str) -> float:
        """The value of one time series; 0 while there is none."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(f"{name} ")), "0"))

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=30)


Start = Callable[..., Process]


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    """Wait until `what` gives something true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def wait() -> Callable[..., None]:
    return wait_for


@pytest.fixture
def start(database: Database, demand_file: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m energy_forecast.<module>` of a tree on the test's database."""
    running: list[Process] = []

    def launch(tree: Path, module: str = "api", **environment: str) -> Process:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        variables = {
            **os.environ,
            "API_PORT": str(port),
            "WORKER_PORT": str(port),
            "DATABASE_URL_FILE": str(database.file),
            "DEMAND_FILE": str(demand_file),
            "DRAIN_SECONDS": "0",
            "PYTHONPATH": str(tree),
            **environment,
        }
        log = tmp_path / f"{module}-{len(running)}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", f"energy_forecast.{module}"]
            popen = subprocess.Popen(command, cwd=tree, env=variables, stdout=output, stderr=subprocess.STDOUT)
        process = Process(popen=popen, port=port, log=log)
        running.append(process)

        def listening() -> bool:
            assert popen.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        wait_for(listening)
        return process

    yield launch
    for process in running:
        process.popen.kill()
        process.popen.wait()
