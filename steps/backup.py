"""A dump and a manifest of counts and checksums, both from one exported snapshot, complete or not there at all.

Leaves to others: restoring. A restore is proven by computing `table_sums` of the restored database again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from steps import database
from steps.context import Context
from steps.errors import StepError
from steps.records import canonical, timestamp

FORMAT = 1
LOCK = "backup"
DUMP = "dump.pgc"
MANIFEST = "manifest.json"
_PARTIAL = ".partial-"
_LOCK_PATIENCE = 600.0
# Room for the manifest, and so that the claim is not filled to its last block.
_SPARE_BYTES = 16 * 1024 * 1024

_TABLES = """
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
ORDER BY 1, 2
"""
_SEQUENCES = """
SELECT schemaname, sequencename FROM pg_sequences
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname NOT LIKE 'pg\\_%%' ORDER BY 1, 2
"""
# A row's text depends on these; fixed, the same row has the same checksum on every server.
_TEXT_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
}


@dataclass(frozen=True, kw_only=True)
class TableSum:
    """Rows of a table and the sum of their 64-bit hashes (a decimal number): the order of the rows does not matter."""

    rows: int
    checksum: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--database-url-file", required=True)
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--keep", type=int, default=10, help="how many complete backups stay")


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"backup": {"name", "sha256", "bytes", "tables", "rows", "revision", "finished"}, "kept", "removed"}."""
    if arguments.keep < 1:
        raise StepError(f"--keep is {arguments.keep}; at least the backup just made has to stay")
    directory: Path = arguments.directory
    if not directory.is_dir():
        raise StepError(f"{directory} is no directory; mount the claim for backups there")
    where = database.target(context, arguments.database_url_file)
    # Two runs at once would take each other's unfinished backup for a leftover.
    with (
        database.connect(context, where) as guard,
        database.exclusive(context, guard, LOCK, patience=_LOCK_PATIENCE),
    ):
        _remove_partial(context, directory)
        existing = _existing(context, directory, where)
        name = existing or _make(context, directory, where)
        removed = _rotate(context, directory, arguments.keep, name)
    return {"backup": summary(directory / name), "kept": existing is not None, "removed": removed}


def summary(backup: Path) -> dict[str, Any]:
    """What the record keeps of a backup."""
    manifest = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
    return {
        "name": backup.name,
        "sha256": manifest["dump"]["sha256"],
        "bytes": manifest["dump"]["bytes"],
        "tables": len(manifest["tables"]),
        "rows": sum(table["rows"] for table in manifest["tables"].values()),
        "revision": manifest["revision"],
        "finished": manifest["finished"],
    }


def _complete(directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All complete backups with their manifests, oldest first; what only looks like one is left alone."""
    found: list[tuple[str, Path, dict[str, Any]]] = []
    for path in directory.iterdir():
        if path.name.startswith(".") or not (path / DUMP).is_file() or not (path / MANIFEST).is_file():
            continue
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            found.append((str(manifest["finished"]), path, manifest))
        except (ValueError, KeyError, TypeError):
            continue
    return [(path, manifest) for _, path, manifest in sorted(found, key=lambda item: (item[0], item[1].name))]


def _existing(context: Context, directory: Path, where: database.Target) -> str | None:
    """The newest intact backup of this deployment: made before its migration, so no later one could replace it."""
    wanted = {
        "format": FORMAT,
        "environment": context.environment,
        "deployment": context.deployment,
        "version": context.version,
        "database": where.database,
    }
    for path, manifest in reversed(_complete(directory)):
        if any(manifest.get(key) != value for key, value in wanted.items()):
            continue
        if _hash(path / DUMP) == (manifest["dump"]["sha256"], manifest["dump"]["bytes"]):
            context.log(f"{path.name} was made for this deployment at {manifest['finished']} and is intact: kept")
            return str(path.name)
        context.log(f"{path.name} was made for this deployment, but its dump does not have its checksum: made again")
    return None


def _remove_partial(context: Context, directory: Path) -> None:
    for path in directory.glob(f"{_PARTIAL}*"):
        context.log(f"removing {path.name}, left by an interrupted backup")
        shutil.rmtree(path)


def _rotate(context: Context, directory: Path, keep: int, newest: str) -> list[str]:
    ours = [path for path, manifest in _complete(directory) if manifest.get("environment") == context.environment]
    others = [path for path in ours if path.name != newest]
    surplus = others[: max(len(others) - (keep - 1), 0)]
    for path in surplus:
        # Renamed first: a removal cut short must not leave half a backup that looks complete.
        gone = path.with_name(f"{_PARTIAL}{path.name}")
        path.rename(gone)
        shutil.rmtree(gone)
        context.log(f"removed {path.name}: {keep} backups are kept")
    return [path.name for path in surplus]


def _make(context: Context, directory: Path, where: database.Target) -> str:
    stamp = context.now().strftime("%Y%m%dT%H%M%SZ")
    name = f"{context.environment}-{context.deployment}-{stamp}"
    partial = directory / f"{_PARTIAL}{name}"
    try:
        with database.connect(context, where) as connection:
            _check_space(context, connection, directory, where)
            partial.mkdir(mode=0o750)
            manifest = _dump(context, connection, where, partial)
        _write(partial / MANIFEST, canonical(manifest) + "\n")
        _sync(partial)
        partial.rename(directory / name)
        _sync(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    context.log(f"backup {name} complete: {manifest['dump']['bytes']} bytes, {len(manifest['tables'])} tables")
    return name


def _check_space(context: Context, connection: database.Connection, directory: Path, where: database.Target) -> None:
    row = connection.execute(
        "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchone()
    needed = (int(row[0]) if row else 0) + _SPARE_BYTES
    free = shutil.disk_usage(directory).free
    context.log(f"{where}: {needed} bytes at most are needed in {directory}, {free} are free")
    if free < needed:
        raise StepError(
            f"{directory} has {free} bytes free, a backup of {where} may need {needed}: "
            "enlarge the claim for backups or keep fewer (release:backupKeep)"
        )


def _dump(context: Context, connection: database.Connection, where: database.Target, folder: Path) -> dict[str, Any]:
    started = context.now()
    try:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
            connection.execute(sql.SQL("SET {} = 0").format(sql.Identifier(setting)))
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(
            "SELECT pg_export_snapshot(), current_setting('server_version'), "
            "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text"
        ).fetchone()
        snapshot, version, lsn = row if row else ("", "", "")
        with _pg_dump(context, where, snapshot, folder / DUMP) as dump:
            tables = table_sums(context, connection)
            sequences = _sequences(connection)
            large_objects = _count(connection, "SELECT count(*) FROM pg_largeobject_metadata")
            revision = database.revision(connection)
            _finish(dump, where)
        connection.execute("ROLLBACK")
    except psycopg.Error as error:
        raise StepError(f"the backup of {where} failed: {' '.join(str(error).split())}") from error
    _sync(folder / DUMP)
    digest, size = _hash(folder / DUMP)
    return {
        "format": FORMAT,
        "environment": context.environment,
        "deployment": context.deployment,
        "version": context.version,
        "database": where.database,
        "server_version": version,
        "snapshot": snapshot,
        "lsn": lsn,
        "revision": revision,
        "tables": {name: asdict(table) for name, table in tables.items()},
        "sequences": sequences,
        "large_objects": large_objects,
        "started": timestamp(started),
        "finished": timestamp(context.now()),
        "dump": {"file": DUMP, "sha256": digest, "bytes": size},
    }


def table_sums(context: Context, connection: database.Connection) -> dict[str, TableSum]:
    """Rows and checksum of every table of every user schema, by `schema.table`, in the connection's transaction.

    The server adds the hashes up, so neither side ever holds more than a row. Inherited rows and partitions count
    where they are stored. Raises psycopg.Error.
    """
    for setting, value in _TEXT_SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, true)", (setting, value))
    # A row hidden by a policy must be an error, not a smaller count.
    connection.execute("SELECT set_config('row_security', 'off', true)")
    names = connection.execute(_TABLES).fetchall()
    sums: dict[str, TableSum] = {}
    for number, (schema, table) in enumerate(names, 1):
        began = context.monotonic()
        # `t.*` and not `t`: a column may be called t.
        row = connection.execute(
            sql.SQL(
                "SELECT count(*), coalesce(sum(hashtextextended((t.*)::text, 0)), 0)::text FROM ONLY {} AS t"
            ).format(sql.Identifier(schema, table))
        ).fetchone()
        if row is None:
            continue
        sums[f"{schema}.{table}"] = TableSum(rows=row[0], checksum=row[1])
        context.log(
            f"{number}/{len(names)} {schema}.{table}: {row[0]} rows, checksum {row[1]} "
            f"({context.monotonic() - began:.1f} s)"
        )
    return sums


def _sequences(connection: database.Connection) -> dict[str, dict[str, Any]]:
    """Values of all sequences; they are outside every snapshot, so the dump's may be a little older."""
    values = {}
    for schema, name in connection.execute(_SEQUENCES).fetchall():
        row = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
        ).fetchone()
        if row is not None:
            values[f"{schema}.{name}"] = {"last_value": row[0], "is_called": row[1]}
    return values


def _count(connection: database.Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, kw_only=True)
class _Dump:
    process: subprocess.Popen[bytes]
    errors: Any


@contextmanager
def _pg_dump(context: Context, where: database.Target, snapshot: str, file: Path) -> Iterator[_Dump]:
    """pg_dump beside the checksums; ended when they fail. The password goes by environment, which only it can read."""
    program = shutil.which("pg_dump")
    if program is None:
        raise StepError("pg_dump is not in the image; install PostgreSQL's client programs")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PGPASSWORD": where.password,
        "PGAPPNAME": f"release/{context.step}/{context.deployment}",
        "PGCONNECT_TIMEOUT": "10",
        **{
            f"PG{key.upper()}": str(value)
            for key, value in where.options.items()
            if key in {"sslmode", "sslrootcert", "sslcert", "sslkey", "options"}
        },
    }
    command = [
        program,
        "--format=custom",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--host={where.host}",
        f"--port={where.port}",
        f"--username={where.user}",
        f"--file={file}",
        where.database,
    ]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            yield _Dump(process=process, errors=errors)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _finish(dump: _Dump, where: database.Target) -> None:
    code = dump.process.wait()
    dump.errors.seek(0)
    said = dump.errors.read().decode(errors="replace").strip()
    if code != 0:
        raise StepError(
            f"pg_dump of {where} failed with exit code {code}: {' '.join(said.split()) or 'it said nothing'}"
        )


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Makes a file's content, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
