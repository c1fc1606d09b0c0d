"""The migrations on a real PostgreSQL: there and back with rows, interrupted, and under code that knows none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

pytestmark = pytest.mark.postgres

Compose = Callable[[str], Path]

FILL = """
INSERT INTO readings (at, demand_mw, source)
SELECT '2025-01-01T00:00Z'::timestamptz + i * interval '30 minutes', 20000 + i, 'meter-' || mod(i, 3)
FROM generate_series(0, %s - 1) AS i
"""
STALL = """
CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$
"""
CONTENT = "SELECT at, demand_mw, source, recorded_at FROM readings ORDER BY at"


def shape(database: Any) -> dict[str, set[tuple[Any, ...]]]:
    """Columns, constraints, indexes, triggers and functions, whatever their order."""
    return {
        "columns": set(
            database.rows(
                "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
                " WHERE table_schema = 'public'"
            )
        ),
        "constraints": set(
            database.rows(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace"
            )
        ),
        "indexes": set(
            database.rows(
                "SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid FROM pg_index i"
                " JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace"
            )
        ),
        "triggers": set(database.rows("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal")),
        "functions": set(
            database.rows("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        ),
    }


def test_up_down_and_up_again_keeps_every_row_and_restores_every_shape(database: Any, compose: Compose) -> None:
    tree = compose("2.0.0")
    database.upgrade(tree, "0001")
    database.run(FILL, 2500)
    content = database.rows(CONTENT)
    shapes = {"0001": shape(database)}
    for revision in ("0002", "0003", "0004"):
        database.upgrade(tree, revision)
        assert database.revision == revision
        shapes[revision] = shape(database)
    assert database.rows(CONTENT.replace("demand_mw", "demand_megawatts")) == content
    for revision in ("0003", "0002", "0001"):
        database.downgrade(tree, revision)
        assert shape(database) == shapes[revision]
        assert database.rows(CONTENT) == content
    database.upgrade(tree, "0004")
    assert shape(database) == shapes["0004"]
    assert database.rows(CONTENT.replace("demand_mw", "demand_megawatts")) == content
    database.downgrade(tree, "base")
    assert database.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("alembic_version",)]


def test_readings_of_other_regions_wait_outside_while_there_is_no_place_for_them(
    database: Any, compose: Compose
) -> None:
    tree = compose("1.1.0")
    database.upgrade(tree, "0002")
    database.run(FILL, 10)
    database.run("INSERT INTO readings (at, demand_mw, region) SELECT at, demand_mw / 10, 'Wales' FROM readings")
    before = database.rows("SELECT * FROM readings ORDER BY region, at")
    assert len(before) == 20
    database.downgrade(tree, "0001")
    assert database.rows("SELECT count(*) FROM readings") == [(10,)]
    database.run(FILL.replace("i * ", "(100 + i) * "), 5)
    database.upgrade(tree, "0002")
    kept = database.rows("SELECT * FROM readings WHERE at < '2025-01-02' ORDER BY region, at")
    columns = [
        name
        for (name,) in database.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'readings' ORDER BY ordinal_position"
        )
    ]
    assert set(columns) == {"at", "demand_mw", "source", "recorded_at", "region"}
    assert kept == before
    assert database.rows("SELECT to_regclass('readings_other_regions')") == [(None,)]


@pytest.mark.parametrize(
    ("revision", "column"), [("0002", "region"), ("0003", "demand_megawatts")], ids=["regions", "megawatts"]
)
def test_a_killed_backfill_keeps_what_it_did_and_converges_when_run_again(
    database: Any, compose: Compose, wait: Callable[..., None], revision: str, column: str
) -> None:
    tree = compose("2.0.0")
    database.upgrade(tree, f"{int(revision) - 1:04}")
    database.run(FILL, 4500)
    content = database.rows(CONTENT)
    # A row of the third batch cannot be written: the first two are done when the migration is killed.
    holder = database.connect()
    holder.execute("SELECT pg_advisory_lock(1)")
    database.run(STALL)
    database.run(
        "CREATE TRIGGER stall BEFORE UPDATE ON readings FOR EACH ROW WHEN (OLD.demand_mw = 22300)"
        " EXECUTE FUNCTION stall()"
    )
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            database.upgrade(tree, revision, "victim")
        except SQLAlchemyError as error:
            errors.append(error)

    thread = threading.Thread(target=migrate)
    thread.start()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event_type = 'Lock'"
    wait(lambda: database.rows(waiting))
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
    thread.join()
    holder.close()
    database.run("DROP FUNCTION stall CASCADE")
    assert len(errors) == 1
    assert database.revision == f"{int(revision) - 1:04}"
    counts = f"SELECT count(*), count({column}) FROM readings"  # noqa: S608
    assert database.rows(counts) == [(4500, 2000)]
    # Code that runs meanwhile writes both old rows and new ones.
    database.run("UPDATE readings SET source = 'late' WHERE demand_mw IN (20001, 24000)")
    database.run(FILL.replace("i * ", "(9000 + i) * "), 3)
    for _ in range(2):
        database.upgrade(tree, revision)
    assert database.revision == revision
    assert database.rows(counts) == [(4503, 4503)]
    after = [row for row in database.rows(CONTENT) if row[0] <= content[-1][0]]
    assert [row[:2] for row in after] == [row[:2] for row in content]
    assert [row[1] for row in after if row[2] == "late"] == [20001, 24000]


def test_an_index_left_half_built_is_built_again(database: Any, compose: Compose, wait: Callable[..., None]) -> None:
    tree = compose("1.1.0")
    database.upgrade(tree, "0001")
    database.run(FILL, 100)
    # A concurrent build waits for every older snapshot, with the index there already but not valid.
    reader = database.connect()
    reader.autocommit = False
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1")
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            database.upgrade(tree, "0002", "victim")
        except SQLAlchemyError as error:
            errors.append(error)

    thread = threading.Thread(target=migrate)
    thread.start()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = 'virtualxid'"
    wait(lambda: database.rows(waiting))
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
    thread.join()
    reader.close()
    invalid = "SELECT 1 FROM pg_index WHERE NOT indisvalid"
    assert (len(errors), len(database.rows(invalid))) == (1, 1)
    database.upgrade(tree, "0002")
    assert not database.rows(invalid)
    key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'readings_pkey'"
    assert database.rows(key) == [("PRIMARY KEY (at, region)",)]


@pytest.mark.parametrize(
    ("old", "new", "revision"), [("1.0.0", "1.1.0", "0002"), ("1.1.1", "2.0.0", "0003")], ids=["regions", "megawatts"]
)
def test_old_code_serves_without_an_error_while_the_schema_expands_and_after(
    database: Any, compose: Compose, start: Any, wait: Callable[..., None], old: str, new: str, revision: str
) -> None:
    database.upgrade(compose(old), f"{int(revision) - 1:04}")
    database.run(FILL, 20_000)
    api = start(compose(old))
    wait(lambda: api.get("/readyz")[0] == 200)
    answers: list[tuple[int, Any]] = []
    done = threading.Event()

    def use(day: int) -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            at = f"2026-01-{day:02}T{turn % 24:02}:00:00Z"
            # One new row or the same again, and one among those that are being backfilled.
            answers.append(api.post({"at": at, "demand_mw": 1000.0 + turn}))
            answers.append(api.post({"at": f"2025-0{day}-{turn % 28 + 1:02}T00:00:00Z", "demand_mw": 2000.0 + turn}))
            answers.append(api.get("/v1/forecast?horizon_hours=1"))

    threads = [threading.Thread(target=use, args=(day,)) for day in (1, 2, 3)]
    for thread in threads:
        thread.start()
    wait(lambda: len(answers) > 60)
    database.upgrade(compose(new), revision)
    so_far = len(answers)
    wait(lambda: len(answers) > so_far + 60)
    done.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200, 201}, [answer for answer in answers if answer[0] > 201][:3]
    assert api.get("/readyz") == (200, {"status": "ready"})
    assert database.rows("SELECT count(*) FROM readings WHERE region IS NULL") == [(0,)]
    if revision == "0003":
        assert database.rows("SELECT count(*) FROM readings WHERE demand_mw <> demand_megawatts") == [(0,)]
    assert database.rows("SELECT DISTINCT region FROM readings") == [("EW",)]


def test_the_trigger_keeps_both_names_equal_whoever_writes(database: Any, compose: Compose) -> None:
    database.upgrade(compose("2.0.0"), "0003")
    both = "SELECT demand_mw, demand_megawatts FROM readings WHERE at = '2025-01-01'"
    database.run("INSERT INTO readings (at, demand_mw) VALUES ('2025-01-01', 10)")
    assert database.rows(both) == [(10, 10)]
    database.run("UPDATE readings SET demand_megawatts = 11")
    assert database.rows(both) == [(11, 11)]
    database.run("UPDATE readings SET demand_mw = 12, source = 'x'")
    assert database.rows(both) == [(12, 12)]
    database.run("UPDATE readings SET source = 'y'")
    assert database.rows(both) == [(12, 12)]
    database.run("UPDATE readings SET demand_mw = 13, demand_megawatts = 13")
    assert database.rows(both) == [(13, 13)]
    database.run("DELETE FROM readings")
    database.run("INSERT INTO readings (at, demand_megawatts) VALUES ('2025-01-01', 20)")
    assert database.rows(both) == [(20, 20)]
    for refused in (
        "UPDATE readings SET demand_mw = 1, demand_megawatts = 2",
        "UPDATE readings SET demand_mw = NULL",
        "UPDATE readings SET demand_megawatts = -1",
        "INSERT INTO readings (at, demand_mw, demand_megawatts) VALUES ('2025-01-02', 1, 2)",
        "INSERT INTO readings (at) VALUES ('2025-01-02')",
    ):
        with pytest.raises(psycopg.errors.IntegrityError):
            database.run(refused)
    assert database.rows("SELECT demand_mw, demand_megawatts FROM readings") == [(20, 20)]


def test_old_and_new_code_overwrite_each_others_readings(database: Any, compose: Compose, start: Any) -> None:
    database.upgrade(compose("2.0.0"), "0003")
    old, new = start(compose("1.1.1")), start(compose("2.0.0"))
    at = "2025-01-01T00:00:00Z"
    for writer, demand in ((old, 100.0), (new, 200.0), (old, 300.0), (old, 300.0), (new, 400.0)):
        assert writer.post({"at": at, "demand_mw": demand}) == (201, {"count": 1})
        assert old.get("/v1/readings")[1]["readings"][0]["demand_mw"] == demand
        assert new.get("/v1/readings")[1]["readings"][0]["demand_megawatts"] == demand


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.1.1", "1.1.2", "1.2.0", "2.0.0"])
def test_each_release_is_ready_on_exactly_the_schemas_that_it_can_use(
    database: Any, compose: Compose, start: Any, releases: dict[str, Any], wait: Callable[..., None], version: str
) -> None:
    tree = compose("2.0.0")
    database.upgrade(tree, "0001")
    api = start(compose(version))
    wait(lambda: "no connection" not in str(api.get("/readyz")[1]))
    ready = []
    for revision in ("0001", "0002", "0003", "0004"):
        database.upgrade(tree, revision)
        status, answer = api.get("/readyz")
        if status == 200:
            assert api.post({"at": "2025-01-01T00:00:00Z", "demand_mw": 1.0})[0] == 201
            assert api.get("/v1/forecast")[0] == 200
            ready.append(revision)
        else:
            assert (status, "column" in answer["detail"], "does not exist" in answer["detail"]) == (503, True, True)
    assert set(releases[version]["schema"]["compatible"]) <= set(ready)
    # 1.0.0 also works on 0003, which it does not promise because nobody could have known it then.
    assert set(ready) - set(releases[version]["schema"]["compatible"]) <= ({"0003"} if version == "1.0.0" else set())
