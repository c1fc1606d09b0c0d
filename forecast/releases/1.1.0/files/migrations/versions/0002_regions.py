"""Readings carry a region; the key becomes (at, region) under its old name."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
phase = "expand"

BATCH = 1000
HOME = "EW"


def upgrade() -> None:
    """Every part can be run again after an interruption, and none holds a lock for longer than a moment."""
    op.execute("ALTER TABLE readings ADD COLUMN IF NOT EXISTS region text")
    # Before the backfill, so that rows which running code inserts meanwhile are not left behind.
    op.execute(f"ALTER TABLE readings ALTER COLUMN region SET DEFAULT '{HOME}'")
    with op.get_context().autocommit_block():
        _backfill()
        # After the backfill: an unvalidated check would refuse running code's updates of rows without a region.
        op.execute(
            "ALTER TABLE readings DROP CONSTRAINT IF EXISTS readings_region_present,"
            " ADD CONSTRAINT readings_region_present CHECK (region IS NOT NULL) NOT VALID"
        )
        op.execute("ALTER TABLE readings VALIDATE CONSTRAINT readings_region_present")
        # The validated check spares SET NOT NULL its own scan of the table under the strongest lock.
        op.execute("ALTER TABLE readings ALTER COLUMN region SET NOT NULL")
        op.execute("ALTER TABLE readings DROP CONSTRAINT readings_region_present")
        _build_index("readings_at_region", "(at, region)")
    # Under the same name, because running code's upserts name the constraint and not its columns.
    op.execute(
        "ALTER TABLE readings DROP CONSTRAINT readings_pkey,"
        " ADD CONSTRAINT readings_pkey PRIMARY KEY USING INDEX readings_at_region"
    )
    if _exists("readings_other_regions"):
        op.execute(
            "INSERT INTO readings (at, demand_mw, source, recorded_at, region)"
            " SELECT at, demand_mw, source, recorded_at, region FROM readings_other_regions"
            " ON CONFLICT ON CONSTRAINT readings_pkey DO NOTHING"
        )
        op.execute("DROP TABLE readings_other_regions")


def downgrade() -> None:
    """Readings of other regions have no place under a key on time alone: they wait in readings_other_regions.

    The next upgrade puts them back.
    """
    op.execute(
        "CREATE TABLE IF NOT EXISTS readings_other_regions (at timestamptz, demand_mw double precision NOT NULL,"
        " source text NOT NULL, recorded_at timestamptz NOT NULL, region text, PRIMARY KEY (at, region))"
    )
    moved = text(
        "WITH moved AS (DELETE FROM readings WHERE region <> :home"
        " RETURNING at, demand_mw, source, recorded_at, region)"
        " INSERT INTO readings_other_regions SELECT at, demand_mw, source, recorded_at, region FROM moved"
    )
    op.get_bind().execute(moved, {"home": HOME})
    if not op.get_bind().scalar(text("SELECT EXISTS (SELECT FROM readings_other_regions)")):
        op.execute("DROP TABLE readings_other_regions")
    with op.get_context().autocommit_block():
        _build_index("readings_at", "(at)")
    op.execute(
        "ALTER TABLE readings DROP CONSTRAINT readings_pkey,"
        " ADD CONSTRAINT readings_pkey PRIMARY KEY USING INDEX readings_at"
    )
    op.execute("ALTER TABLE readings DROP COLUMN region")


def _backfill() -> None:
    """Give rows without a region the home region, a batch a transaction, in the order that running code locks rows."""
    batch = text(
        "WITH batch AS (SELECT at FROM readings WHERE at > :after AND region IS NULL"
        " ORDER BY at LIMIT :rows FOR UPDATE),"
        " done AS (UPDATE readings SET region = :home FROM batch WHERE readings.at = batch.at RETURNING readings.at)"
        " SELECT max(at) FROM done"
    )
    bind = op.get_bind()
    after = bind.scalar(text("SELECT '-infinity'::timestamptz::text"))
    while True:
        newest = bind.scalar(batch, {"after": after, "rows": BATCH, "home": HOME})
        if newest is None:
            return
        after = newest


def _build_index(name: str, columns: str) -> None:
    # An interrupted build leaves an invalid index behind, which IF NOT EXISTS would take for a finished one.
    invalid = text("SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)")
    if op.get_bind().scalar(invalid, {"name": name}):
        op.execute(f"DROP INDEX CONCURRENTLY {name}")
    op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON readings {columns}")


def _exists(table: str) -> bool:
    return bool(op.get_bind().scalar(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table}))
