"""Backup, access and connections on a real PostgreSQL."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from steps import access, backup, database
from steps.errors import StepError
from steps.vocabulary import Step
from tests.postgres import Postgres
from tests.steps_support import Recording, secret

TABLES = """
CREATE TABLE readings (id int PRIMARY KEY, t text, at timestamptz DEFAULT '2026-01-01T00:00:00Z');
INSERT INTO readings SELECT n, 'row ' || n FROM generate_series(1, 500) n;
CREATE SCHEMA other;
CREATE TABLE other."Odd ""name" (t numeric, blob bytea);
INSERT INTO other."Odd ""name" VALUES (1.50, '\\xdeadbeef'), (1.50, '\\xdeadbeef');
CREATE TABLE empty (id int);
CREATE TABLE alembic_version (version_num text PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0002');
CREATE SEQUENCE tickets;
SELECT setval('tickets', 41);
"""


def run(
    module: ModuleType, step: Step, *flags: str, deployment: int = 1, later: timedelta = timedelta()
) -> tuple[Mapping[str, Any], Recording]:
    recording = Recording(step, deployment=deployment)
    recording.context.now = lambda: datetime.now(UTC) + later
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(recording.context, parser.parse_args(list(flags))), recording


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


class Backups:
    """A database with tables, and a folder for its backups."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder / "backups"
        self.folder.mkdir()
        self.url_file = secret(folder, "url", url)
        execute(url, TABLES)

    def run(
        self, *flags: str, deployment: int = 1, later: timedelta = timedelta()
    ) -> tuple[Mapping[str, Any], Recording]:
        return run(
            backup,
            Step.BACKUP,
            f"--database-url-file={self.url_file}",
            f"--directory={self.folder}",
            *flags,
            deployment=deployment,
            later=later,
        )

    def manifest(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / name / "manifest.json").read_text())
        return document

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def backups(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backups:
    monkeypatch.setenv("PATH", postgres.path)
    return Backups(postgres.database(), tmp_path)


def test_a_backup_restores_to_the_rows_and_checksums_of_its_manifest(backups: Backups, postgres: Postgres) -> None:
    data, recording = backups.run()
    name = data["backup"]["name"]
    manifest = backups.manifest(name)
    assert {table: each["rows"] for table, each in manifest["tables"].items()} == {
        "public.readings": 500,
        'other.Odd "name': 2,
        "public.empty": 0,
        "public.alembic_version": 1,
    }
    assert manifest["revision"] == "0002"
    assert manifest["sequences"] == {"public.tickets": {"last_value": 41, "is_called": True}}
    assert data["backup"]["rows"] == 503
    assert data["backup"]["bytes"] == (backups.folder / name / "dump.pgc").stat().st_size
    assert "public.readings: 500 rows, checksum" in recording.output

    restored = postgres.database()
    subprocess.run(
        ["pg_restore", "--no-owner", f"--dbname={restored}", str(backups.folder / name / "dump.pgc")],
        check=True,
        env={**os.environ, "PATH": postgres.path},
    )
    assert sums(restored) == {table: (each["rows"], each["checksum"]) for table, each in manifest["tables"].items()}


def sums(url: str) -> dict[str, tuple[int, str]]:
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        found = backup.table_sums(Recording(Step.BACKUP).context, connection)
    return {table: (each.rows, each.checksum) for table, each in found.items()}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE readings SET t = 'changed' WHERE id = 250",
        "DELETE FROM readings WHERE id = 250",
        """INSERT INTO other."Odd ""name" VALUES (1.50, '\\xdeadbeef')""",
        """UPDATE other."Odd ""name" SET t = 1.5""",
        "UPDATE readings SET at = at + interval '1 microsecond' WHERE id = 1",
    ],
)
def test_every_change_of_a_row_changes_the_checksum(backups: Backups, change: str) -> None:
    before = sums(backups.url)
    execute(backups.url, change)
    after = sums(backups.url)
    assert len([table for table in before if before[table] != after[table]]) == 1


def test_the_checksum_depends_neither_on_the_order_of_rows_nor_on_the_sessions_settings(backups: Backups) -> None:
    before = sums(backups.url)
    name = backups.url.rsplit("/", 1)[1]
    execute(backups.url, "CREATE TABLE copy AS SELECT * FROM readings ORDER BY id DESC")
    execute(backups.url, "TRUNCATE readings; INSERT INTO readings SELECT * FROM copy; DROP TABLE copy")
    execute(backups.url, f"ALTER ROLE {name} SET timezone = 'Asia/Tokyo'; ALTER ROLE {name} SET datestyle = 'German'")
    assert sums(backups.url) == before


def test_dump_and_manifest_are_of_one_snapshot_while_rows_are_written(backups: Backups, postgres: Postgres) -> None:
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import psycopg, sys, itertools\n"
            "with psycopg.connect(sys.argv[1], autocommit=True) as connection:\n"
            "    for number in itertools.count(1000):\n"
            "        connection.execute('INSERT INTO readings (id) VALUES (%s)', (number,))\n",
            backups.url,
        ]
    )
    try:
        deadline = time.monotonic() + 10
        while execute(backups.url, "SELECT count(*) FROM readings")[0][0] <= 500 and time.monotonic() < deadline:
            time.sleep(0.02)
        data, _ = backups.run()
    finally:
        writer.kill()
        writer.wait()
    name = data["backup"]["name"]
    restored = postgres.database()
    subprocess.run(
        ["pg_restore", "--no-owner", f"--dbname={restored}", str(backups.folder / name / "dump.pgc")],
        check=True,
        env={**os.environ, "PATH": postgres.path},
    )
    table = backups.manifest(name)["tables"]["public.readings"]
    assert table["rows"] > 500
    assert sums(restored)["public.readings"] == (table["rows"], table["checksum"])


def test_a_rerun_of_the_same_deployment_keeps_its_backup(backups: Backups) -> None:
    first, _ = backups.run()
    execute(backups.url, "UPDATE alembic_version SET version_num = '0003'")
    second, recording = backups.run()
    assert (first["kept"], second["kept"]) == (False, True)
    assert second["backup"] == first["backup"]
    assert len(backups.names) == 1
    assert "is intact: kept" in recording.output


def test_a_damaged_backup_is_made_again(backups: Backups) -> None:
    first, _ = backups.run()
    with (backups.folder / first["backup"]["name"] / "dump.pgc").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff\xff")
    second, recording = backups.run(later=timedelta(minutes=1))
    assert second["kept"] is False
    assert "its dump does not have its checksum: made again" in recording.output


def test_an_interrupted_backup_is_removed_by_the_next(backups: Backups) -> None:
    partial = backups.folder / ".partial-staging-1-20260101T000000Z"
    partial.mkdir()
    (partial / "dump.pgc").write_bytes(b"half")
    data, recording = backups.run()
    assert backups.names == [data["backup"]["name"]]
    assert "removing .partial-staging-1-20260101T000000Z, left by an interrupted backup" in recording.output


def test_the_newest_backups_are_kept_and_never_the_new_one_removed(backups: Backups) -> None:
    foreign = backups.folder / "notes"
    foreign.mkdir()
    names = []
    for deployment in (1, 2, 3):
        data, _ = backups.run("--keep=2", deployment=deployment)
        names.append(data["backup"]["name"])
    assert data["removed"] == [names[0]]
    assert backups.names == sorted(["notes", names[1], names[2]])
    data, _ = backups.run("--keep=1", deployment=2)
    assert (data["kept"], data["backup"]["name"], data["removed"]) == (True, names[1], [names[2]])


def test_too_little_space_is_refused_before_anything_is_written(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(backups.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StepError, match=r"has 1000 bytes free, a backup of database \S+ on .* may need \d+"):
        backups.run()
    assert backups.names == []


def test_a_failing_dump_leaves_nothing_and_says_why(backups: Backups, tmp_path: Path, postgres: Postgres) -> None:
    name = backups.url.rsplit("/", 1)[1]
    execute(postgres.admin.replace("/postgres", f"/{name}"), "CREATE TABLE secret_things (id int)")
    with pytest.raises(StepError, match="permission denied for table secret_things"):
        backups.run()
    assert backups.names == []


def test_a_password_is_in_no_argument_and_no_output_of_a_backup(backups: Backups) -> None:
    _, recording = backups.run()
    password = database.target(Recording(Step.BACKUP).context, backups.url_file).password
    assert password.startswith("Geheim-")
    assert password not in recording.output


class Access:
    """An owner's database, and a role for the application."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.url = postgres.database()
        self.folder = folder
        self.user = f"app_{self.url.rsplit('/', 1)[1]}"
        self.url_file = secret(folder, "owner", self.url)

    def run(self, password: str) -> tuple[Mapping[str, Any], Recording]:
        return run(
            access,
            Step.ACCESS,
            f"--owner-url-file={self.url_file}",
            f"--app-user={self.user}",
            f"--app-password-file={secret(self.folder, 'password', password)}",
        )

    def as_application(self, password: str) -> str:
        where = database.target(Recording(Step.ACCESS).context, self.url_file)
        return f"host={where.host} port={where.port} dbname={where.database} user={self.user} password='{password}'"


def test_the_application_may_read_and_write_but_not_change_the_schema(postgres: Postgres, tmp_path: Path) -> None:
    case = Access(postgres, tmp_path)
    execute(
        case.url,
        "CREATE TABLE before_it (id serial PRIMARY KEY); CREATE TABLE alembic_version (version_num text); "
        "INSERT INTO alembic_version VALUES ('0001')",
    )
    data, _ = case.run("first-Password-1")
    execute(case.url, "CREATE TABLE after_it (id serial PRIMARY KEY)")
    app = case.as_application("first-Password-1")
    assert data == {"role": case.user, "created": True, "tables": 1}
    for table in ("before_it", "after_it"):
        execute(app, f"INSERT INTO {table} DEFAULT VALUES; UPDATE {table} SET id = 7; DELETE FROM {table}")  # noqa: S608
    assert execute(app, "SELECT version_num FROM alembic_version") == [("0001",)]
    for forbidden in (
        "CREATE TABLE mine (id int)",
        "DROP TABLE before_it",
        "UPDATE alembic_version SET version_num = 'x'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(app, forbidden)


def test_a_new_password_replaces_the_old_one(postgres: Postgres, tmp_path: Path) -> None:
    case = Access(postgres, tmp_path)
    case.run("first-Password-1")
    data, recording = case.run("second 'Password' %2")
    assert data["created"] is False
    assert f"role {case.user} can log in" in recording.output
    with pytest.raises(psycopg.OperationalError):
        execute(case.as_application("first-Password-1"), "SELECT 1")
    assert "Password" not in recording.output


def test_a_role_with_too_many_rights_loses_them(postgres: Postgres, tmp_path: Path) -> None:
    case = Access(postgres, tmp_path)
    execute(postgres.admin, f"CREATE ROLE {case.user} CREATEDB CREATEROLE NOLOGIN")
    case.run("first-Password-1")
    assert execute(
        postgres.admin,
        "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolpassword LIKE 'SCRAM-SHA-256$%' "
        "FROM pg_authid WHERE rolname LIKE 'app_test_%' ORDER BY oid DESC LIMIT 1",
    ) == [(case.user, True, False, False, False, True)]


def test_an_owner_without_the_right_to_make_roles_is_told_what_to_grant(postgres: Postgres, tmp_path: Path) -> None:
    case = Access(postgres, tmp_path)
    owner = case.url.rsplit("/", 1)[1]
    execute(postgres.admin, f"ALTER ROLE {owner} NOCREATEROLE")
    with pytest.raises(
        StepError, match=f"may not set up the role '{case.user}': permission denied.*give the owner CREATEROLE"
    ):
        case.run("first-Password-1")


def test_the_applications_role_is_not_the_owners(postgres: Postgres, tmp_path: Path) -> None:
    case = Access(postgres, tmp_path)
    case.user = case.url.rsplit("/", 1)[1]
    with pytest.raises(StepError, match="is the owner's: it could change the schema"):
        case.run("first-Password-1")


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def connecting(url: str, folder: Path) -> tuple[Recording, database.Target, Clock]:
    recording, clock = Recording(Step.MIGRATE, deployment=17), Clock()
    recording.context.monotonic, recording.context.sleep = clock.monotonic, clock.sleep
    return recording, database.target(recording.context, secret(folder, "url", url)), clock


def test_a_connection_names_step_and_deployment(postgres: Postgres, tmp_path: Path) -> None:
    recording, where, _ = connecting(postgres.database(), tmp_path)
    with database.connect(recording.context, where) as connection:
        row = connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
    assert row == ("release/migrate/17",)


def test_a_server_that_is_not_there_is_waited_for_and_named_without_the_password(tmp_path: Path) -> None:
    recording, where, clock = connecting("postgresql://owner:Geheim%2Fnis@127.0.0.1:1/forecast", tmp_path)
    with pytest.raises(StepError) as caught:
        database.connect(recording.context, where, patience=30.0)
    assert str(caught.value).startswith("no connection to database forecast on 127.0.0.1:1 as owner after ")
    assert 20 < clock.now <= 30
    for text in (str(caught.value), recording.output, repr(where), recording.context.redactor.text("see Geheim/nis")):
        assert "Geheim" not in text


def test_a_wrong_password_is_not_waited_for_long(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    wrong = url.replace("Geheim", "Falsch")
    recording, where, clock = connecting(wrong, tmp_path)
    with pytest.raises(StepError, match="password authentication failed"):
        database.connect(recording.context, where, patience=60.0)
    assert clock.now <= 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not a url", "cannot be read"),
        ("host=db dbname=forecast user=owner", "has no URL"),
        ("postgresql://db/forecast", "has no user in it"),
        ("", "is empty"),
    ],
)
def test_what_is_no_database_url_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(StepError, match=problem):
        database.target(Recording(Step.MIGRATE).context, secret(tmp_path, "url", text))


def test_a_missing_secret_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"the database's URL: the file \S+/none cannot be read .* check the volume"):
        database.target(Recording(Step.MIGRATE).context, str(tmp_path / "none"))


def test_backups_are_named_by_environment_deployment_and_time(backups: Backups) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    data, _ = backups.run(deployment=23)
    prefix, stamp = data["backup"]["name"].rsplit("-", 1)
    assert prefix == "staging-23"
    assert before <= datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) <= datetime.now(UTC)
