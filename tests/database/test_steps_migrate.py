"""Migrations on a real PostgreSQL, with real Alembic folders written for each test."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from steps import database, migrate
from steps.errors import StepError
from steps.vocabulary import Step
from tests.postgres import Postgres
from tests.steps_support import Recording, secret

ROOT = Path(__file__).resolve().parents[2]

CREATE_READINGS = "op.execute('CREATE TABLE readings (id int PRIMARY KEY, at int)')"
INSERT_READINGS = "op.execute('INSERT INTO readings SELECT n, n FROM generate_series(1, 1000) n')"
ADD_REGION = "op.execute('ALTER TABLE readings ADD COLUMN region text')"


class Case:
    """One database and one folder of migrations."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        (folder / "migrations" / "versions").mkdir(parents=True)
        self.url_file = secret(folder, "url", url)

    def migration(self, revision: str, down: str | None, title: str, *statements: str) -> None:
        body = "\n".join(f"    {line}" for statement in statements for line in statement.splitlines())
        (self.folder / "migrations" / "versions" / f"{revision}.py").write_text(
            f'"""{title}"""\n\nfrom alembic import op\nimport sqlalchemy as sa\nimport time, logging\n\n'
            f"revision = {revision!r}\ndown_revision = {down!r}\n\n\ndef upgrade():\n{body}\n"
        )

    def arguments(self, target: str, *flags: str) -> list[str]:
        return [
            f"--database-url-file={self.url_file}",
            f"--migrations={self.folder / 'migrations'}",
            f"--target={target}",
            *flags,
        ]

    def run(self, target: str, *flags: str, deployment: int = 1) -> tuple[Mapping[str, Any], str]:
        recording = Recording(Step.MIGRATE, deployment=deployment)
        parser = argparse.ArgumentParser()
        migrate.add_arguments(parser)
        try:
            data = migrate.run(recording.context, parser.parse_args(self.arguments(target, *flags)))
        finally:
            self.output = recording.output
        return data, recording.output

    def start(self, target: str, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "steps", "migrate", *self.arguments(target, *flags)],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "RELEASE_ENVIRONMENT": "staging",
                "RELEASE_DEPLOYMENT": "7",
                "RELEASE_VERSION": "1.0.0",
                "RECORDS_NAMESPACE": "staging-records",
                "POD_NAMESPACE": "staging",
                "POD_NAME": "migrate-7-pod",
                "KUBECONFIG": "/nonexistent",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def one(self, statement: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement.encode()).fetchone()
            return None if row is None else row[0]

    @contextmanager
    def holding(self, statement: str) -> Iterator[psycopg.Connection[Any]]:
        """An application's transaction that stays open."""
        with psycopg.connect(self.url, application_name="forecast-api") as connection:
            connection.execute(statement.encode())
            yield connection

    def until(self, statement: str) -> None:
        wait(lambda: bool(self.one(statement)), statement)


def wait(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.05)


@pytest.fixture
def case(postgres: Postgres, tmp_path: Path) -> Case:
    return Case(postgres.database(), tmp_path)


def test_migrations_are_applied_in_order_up_to_the_target(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.migration("0002", "0001", "add region", ADD_REGION)
    case.migration("0003", "0002", "later", "op.execute('CREATE TABLE later (id int)')")
    data, output = case.run("0002")
    assert (data["before"], data["after"], data["target"]) == (None, "0002", "0002")
    assert [(each["revision"], each["attempts"]) for each in data["applied"]] == [("0001", 1), ("0002", 1)]
    assert all(0 < each["seconds"] < 20 for each in data["applied"])
    assert case.one("SELECT version_num FROM alembic_version") == "0002"
    assert case.one("SELECT to_regclass('later')") is None
    assert "1/2 0001 (readings): applied" in output
    assert "2/2 0002 (add region): applied" in output


def test_a_database_at_the_target_or_beyond_is_left_alone(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.migration("0002", "0001", "add region", ADD_REGION)
    case.run("0002")
    at, output = case.run("0002")
    beyond, _ = case.run("0001")
    assert (at["before"], at["after"], at["applied"]) == ("0002", "0002", [])
    assert "nothing to do: the database is at 0002, the target 0002 is reached" in output
    assert beyond["note"] == "the database is at 0002, the target 0001 is behind it"
    assert case.one("SELECT version_num FROM alembic_version") == "0002"


def test_an_older_release_on_a_newer_schema_changes_nothing(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.migration("0002", "0001", "add region", ADD_REGION)
    case.run("0002")
    (case.folder / "migrations" / "versions" / "0002.py").unlink()
    data, output = case.run("0001", deployment=2)
    assert (data["before"], data["after"], data["applied"]) == ("0002", "0002", [])
    assert "at revision 0002, which these migrations do not have" in output
    assert case.one("SELECT count(*) FROM information_schema.columns WHERE table_name = 'readings'") == 3


def test_a_failing_migration_is_rolled_back_and_named_with_its_statement(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.migration("0002", "0001", "add region", ADD_REGION, "op.execute('INSERT INTO nowhere VALUES (1)')")
    with pytest.raises(StepError) as caught:
        case.run("0002")
    assert str(caught.value).splitlines() == [
        'migration 0002 (add region) failed: relation "nowhere" does not exist',
        "statement: INSERT INTO nowhere VALUES (1)",
    ]
    assert (caught.value.data["before"], caught.value.data["after"]) == (None, "0001")
    assert case.one("SELECT count(*) FROM information_schema.columns WHERE table_name = 'readings'") == 2
    case.migration("0002", "0001", "add region", ADD_REGION)
    data, _ = case.run("0002")
    assert [each["revision"] for each in data["applied"]] == ["0002"]


def test_an_error_in_a_migrations_own_code_is_shown(case: Case) -> None:
    case.migration("0001", None, "arithmetic", "1 / 0")
    with pytest.raises(StepError, match=r"migration 0001 \(arithmetic\) failed: ZeroDivisionError: division by zero"):
        case.run("0001")


def test_a_lock_that_is_released_costs_attempts_and_not_the_step(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration("0002", "0001", "add region", ADD_REGION)
    with case.holding("UPDATE readings SET at = 0 WHERE id = 1") as application:
        release = threading.Timer(0.6, application.commit)
        release.start()
        data, output = case.run("0002", "--lock-timeout-ms=100", "--lock-attempts=60")
        release.join()
    assert data["after"] == "0002"
    assert data["applied"][0]["attempts"] > 1
    assert data["longest_lock_wait_seconds"] >= 0.1
    assert "got no lock; held by pid" in output
    assert "forecast-api, in a transaction since" in output
    assert case.one("SELECT at FROM readings WHERE id = 1") == 0


def test_a_lock_that_stays_fails_with_who_holds_it_and_changes_nothing(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.run("0001")
    case.migration("0002", "0001", "add region", ADD_REGION)
    with case.holding("SELECT * FROM readings") as application:
        with pytest.raises(StepError) as caught:
            case.run("0002", "--lock-timeout-ms=150", "--lock-attempts=3")
        holder = application.info.backend_pid
    message = str(caught.value)
    assert message.startswith("migration 0002 (add region) did not get its lock in 3 attempts of 150 ms")
    assert f"held by pid {holder} (forecast-api" in message
    assert "statement: ALTER TABLE readings ADD COLUMN region text" in message
    waited: Any = caught.value.data["longest_lock_wait_seconds"]
    assert waited >= 0.15
    assert case.one("SELECT version_num FROM alembic_version") == "0001"
    assert case.one("SELECT count(*) FROM information_schema.columns WHERE table_name = 'readings'") == 2


def test_the_application_never_queues_longer_than_the_lock_timeout(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration("0002", "0001", "add region", ADD_REGION)
    queued = 0
    with case.holding("SELECT * FROM readings") as application:
        process = case.start("0002", "--lock-timeout-ms=200", "--lock-attempts=60")
        with psycopg.connect(case.url, autocommit=True) as other:
            # Many times what one attempt may hold it up, so that only a real queue breaks it; the server measures.
            other.execute("SET lock_timeout = '3s'")
            deadline = time.monotonic() + 20
            while queued < 3 and time.monotonic() < deadline:
                began = time.monotonic()
                other.execute("SELECT count(*) FROM readings")
                queued += time.monotonic() - began > 0.1
        application.commit()
    output, _ = process.communicate(timeout=30)
    assert queued == 3, output
    assert "0002 (add region): applied" in output


def test_a_migration_killed_in_its_transaction_leaves_nothing_and_converges(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration("0002", "0001", "add region", ADD_REGION, "op.execute('SELECT pg_sleep(60)')")
    process = case.start("0002")
    case.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'")
    process.kill()
    process.wait()
    case.migration("0002", "0001", "add region", ADD_REGION)
    began = time.monotonic()
    data, output = case.run("0002", deployment=7)
    assert time.monotonic() - began < 20
    assert [each["revision"] for each in data["applied"]] == ["0002"]
    assert case.one("SELECT count(*) FROM readings") == 1000
    assert case.one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'") == 0, output


def test_an_orphan_on_the_server_is_ended_before_migrating(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    key = database.lock_key(migrate.SESSION_LOCK)
    with psycopg.connect(case.url, autocommit=True, application_name="release/migrate/6") as orphan:
        orphan.execute("SELECT pg_advisory_lock(%s)", (key,))
        pid = orphan.info.backend_pid
        data, output = case.run("0001")
    assert data["after"] == "0001"
    assert f"ending pid {pid} (release/migrate/6" in output


def test_a_terminated_migration_stops_and_says_so(case: Case) -> None:
    case.migration("0001", None, "sleeps", "op.execute('SELECT pg_sleep(60)')")
    process = case.start("0001")
    case.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert output.rstrip().endswith("migrate interrupted: interrupted by SIGTERM")
    case.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%')")


def test_a_second_migration_waits_and_says_for_whom(case: Case) -> None:
    case.migration("0001", None, "slow", "op.execute('SELECT pg_sleep(1)')")
    first = case.start("0001")
    case.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1)%' AND state = 'active'")
    with pytest.raises(StepError, match=r"the lock 'schema' is held by pid \d+ \(release/migrate/7, connected since 2"):
        case.run("0001", "--wait=0.1", deployment=8)
    data, output = case.run("0001", deployment=8)
    first.communicate(timeout=20)
    assert data["note"] == "the database is at 0001, the target 0001 is reached"
    assert "waiting up to 300 s for the lock 'schema', held by pid" in output


def test_an_index_is_built_concurrently_while_a_transaction_is_open(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration(
        "0002",
        "0001",
        "index",
        "with op.get_context().autocommit_block():",
        "    op.execute('CREATE INDEX CONCURRENTLY IF NOT EXISTS readings_at ON readings (at)')",
    )
    with case.holding("UPDATE readings SET at = 0 WHERE id = 1") as application:
        # Longer than lock_timeout: waiting for old transactions is what a concurrent build does, and it blocks nobody.
        release = threading.Timer(1.0, application.commit)
        release.start()
        data, _ = case.run("0002", "--lock-timeout-ms=200")
        release.join()
    assert data["applied"][0]["attempts"] == 1
    assert case.one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'readings_at'::regclass") is True


def test_an_invalid_index_left_by_a_killed_build_is_dropped_and_built_again(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration(
        "0002",
        "0001",
        "index",
        "with op.get_context().autocommit_block():",
        "    op.execute('CREATE INDEX CONCURRENTLY IF NOT EXISTS readings_at ON readings (at)')",
    )
    with case.holding("UPDATE readings SET at = 0 WHERE id = 1"):
        process = case.start("0002")
        case.until("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('readings_at') AND NOT indisvalid")
        process.kill()
        process.wait()
        case.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%')")
    assert case.one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'readings_at'::regclass") is False
    data, output = case.run("0002")
    assert "index public.readings_at on readings is invalid" in output
    assert data["after"] == "0002"
    assert case.one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'readings_at'::regclass") is True


BACKFILL = """\
op.execute("ALTER TABLE readings ADD COLUMN IF NOT EXISTS region text")
with op.get_context().autocommit_block():
    while True:
        done = op.get_bind().execute(sa.text(
            "UPDATE readings SET region = 'england' WHERE id IN "
            "(SELECT id FROM readings WHERE region IS NULL ORDER BY id LIMIT 100)"
        )).rowcount
        if not done:
            break
        logging.getLogger("backfill").info("filled %s rows", done)
        time.sleep(PAUSE)
"""


def test_a_backfill_in_batches_survives_a_kill_and_goes_on(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS, INSERT_READINGS)
    case.run("0001")
    case.migration("0002", "0001", "region", BACKFILL.replace("PAUSE", "0.5"))
    process = case.start("0002")
    case.until("SELECT EXISTS (SELECT FROM information_schema.columns WHERE column_name = 'region')")
    case.until("SELECT count(*) >= 200 FROM readings WHERE region IS NOT NULL")
    process.kill()
    process.wait()
    assert case.one("SELECT count(*) FROM readings WHERE region IS NULL") > 0
    assert case.one("SELECT version_num FROM alembic_version") == "0001"
    case.migration("0002", "0001", "region", BACKFILL.replace("PAUSE", "0"))
    data, output = case.run("0002")
    assert data["after"] == "0002"
    assert "filled 100 rows" in output
    assert case.one("SELECT count(*) FROM readings WHERE region IS NULL") == 0


def test_another_branch_of_revisions_is_refused(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.migration("0002a", "0001", "one way", ADD_REGION)
    case.run("0002a")
    case.migration("0002b", "0001", "other way", "op.execute('SELECT 1')")
    with pytest.raises(StepError, match="at revision 0002a, which is not on the way to 0002b"):
        case.run("0002b")


def test_a_target_the_release_does_not_carry_is_refused_before_connecting(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    with pytest.raises(StepError, match=r"needs schema revision 0009, but its migrations in .* only have: 0001"):
        case.run("0009")


def test_a_lost_connection_is_made_again(case: Case) -> None:
    case.migration("0001", None, "readings", CREATE_READINGS)
    case.migration(
        "0002",
        "0001",
        "dies once",
        "if op.get_bind().execute(sa.text('SELECT count(*) FROM readings')).scalar() == 0:",
        "    with op.get_context().autocommit_block():",
        "        op.execute('INSERT INTO readings VALUES (1, 1)')",
        "    op.execute('SELECT pg_terminate_backend(pg_backend_pid())')",
    )
    data, output = case.run("0002")
    assert data["after"] == "0002"
    assert "was lost, connecting again" in output
    assert case.one("SELECT count(*) FROM readings") == 1
