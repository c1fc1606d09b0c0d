"""A real PostgreSQL for tests: a private server on a free port, made for the session and removed after it.

`from tests.postgres import postgres` in a conftest.py gives the fixture. With TEST_DATABASE_URL (a superuser's URL)
that server is used instead. Where no PostgreSQL is installed, `python -m tests.postgres` unpacks one beside it, and
the fixture does the same by itself.
"""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tools import debian
from tools.errors import ToolError

OLDEST = 13
_START_SECONDS = 60.0
_OPTIONS = {
    # The data is thrown away, so nothing has to survive a power cut.
    "fsync": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Where PostgreSQL's programs lie, and the variables that they need to run."""

    folder: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server: `admin` is a superuser's URL, `path` a PATH with pg_dump and the other programs of the same version."""

    admin: str
    path: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def database(self) -> str:
        """The URL of a fresh, empty database; its owner may create roles and is no superuser, like in production."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        password = f"Geheim-{name}!"
        with psycopg.connect(self.admin, autocommit=True) as connection:
            role = sql.Identifier(name)
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(role, sql.Literal(password))
            )
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(role, role))
            connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))
        parts = conninfo_to_dict(self.admin)
        return f"postgresql://{name}:{password.replace('!', '%21')}@{parts['host']}:{parts['port']}/{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of at least version 13; an error, never a skip, when there is none to be had."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        found = _installed()
        yield Postgres(admin=given, path=_path(found) if found else os.environ.get("PATH", ""))
        return
    with serve(programs()) as server:
        yield server


def programs() -> Programs:
    """PostgreSQL's programs: installed ones, else Debian's unpacked beside the machine. Raises RuntimeError."""
    found = _installed()
    if found is not None:
        return found
    try:
        debian.ensure(debian.absent("postgresql-15"))
    except ToolError as error:
        raise RuntimeError(
            f"the tests need PostgreSQL {OLDEST} or newer and found none: {error}\n"
            "install it (apt-get install postgresql-15), or set TEST_DATABASE_URL to a superuser's URL of any server"
        ) from error
    found = _installed()
    if found is None:
        raise RuntimeError(f"Debian's postgresql-15 was unpacked to {debian.SYSTEM}, but has no initdb")
    return found


def _installed() -> Programs | None:
    on_path = shutil.which("initdb")
    if on_path:
        return Programs(folder=Path(on_path).resolve().parent, environment={})
    for root, environment in ((Path("/"), {}), (debian.SYSTEM, debian.environment())):
        folders = [path.parent for path in (root / "usr/lib/postgresql").glob("*/bin/initdb")]
        usable = [path for path in folders if path.parent.name.isdecimal() and int(path.parent.name) >= OLDEST]
        if usable:
            newest = max(usable, key=lambda path: int(path.parent.name))
            libraries = {key: value for key, value in environment.items() if key == "LD_LIBRARY_PATH"}
            return Programs(folder=newest, environment=libraries)
    return None


def _path(found: Programs) -> str:
    return os.pathsep.join([str(found.folder), os.environ.get("PATH", os.defpath)])


@contextlib.contextmanager
def serve(found: Programs) -> Iterator[Postgres]:
    """Runs a private server as a user that is not root (PostgreSQL refuses root), on loopback and a free port."""
    folder = Path(tempfile.mkdtemp(prefix="release-postgres-"))
    user = _user()
    environment = {"PATH": _path(found), "LC_ALL": "C.UTF-8", **found.environment}
    password = "admin-of-the-tests"
    try:
        (folder / "password").write_text(password)
        if user is not None:
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        uid, gid, groups = (None, None, None) if user is None else (user.pw_uid, user.pw_gid, _groups(user))
        made = subprocess.run(
            [
                str(found.folder / "initdb"),
                f"--pgdata={folder / 'data'}",
                "--username=admin",
                f"--pwfile={folder / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            user=uid,
            group=gid,
            extra_groups=groups,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        port = _free_port()
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    str(found.folder / "postgres"),
                    "-D",
                    str(folder / "data"),
                    *(f"-c{key}={value}" for key, value in _OPTIONS.items()),
                    "-clisten_addresses=127.0.0.1",
                    f"-cport={port}",
                    f"-cunix_socket_directories={folder}",
                ],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                user=uid,
                group=gid,
                extra_groups=groups,
            )
        try:
            admin = f"postgresql://admin:{password}@127.0.0.1:{port}/postgres"
            _wait(server, admin, folder / "log")
            yield Postgres(admin=admin, path=environment["PATH"])
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> pwd.struct_passwd | None:
    """Who shall run the server; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("the tests run as root, and there is neither a user postgres nor nobody to run PostgreSQL")


def _groups(user: pwd.struct_passwd) -> list[int]:
    return [group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{said}") from error
            time.sleep(0.05)


if __name__ == "__main__":
    sys.stdout.write(f"PostgreSQL for the tests: {programs().folder}\n")
