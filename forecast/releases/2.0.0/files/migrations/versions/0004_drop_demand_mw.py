"""The old column demand_mw goes, with the trigger that kept it: nothing older than 2.0.0 runs any more."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
phase = "contract"

BATCH = 1000

# Whoever writes one column writes both: old code knows the one, new code the other.
FUNCTION = """
CREATE OR REPLACE FUNCTION readings_same_demand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.demand_mw IS NOT DISTINCT FROM OLD.demand_mw THEN
            IF NEW.demand_megawatts IS DISTINCT FROM OLD.demand_megawatts THEN
                NEW.demand_mw := NEW.demand_megawatts;
            END IF;
        ELSIF NEW.demand_megawatts IS NOT DISTINCT FROM OLD.demand_megawatts THEN
            NEW.demand_megawatts := NEW.demand_mw;
        END IF;
    END IF;
    NEW.demand_megawatts := coalesce(NEW.demand_megawatts, NEW.demand_mw);
    NEW.demand_mw := coalesce(NEW.demand_mw, NEW.demand_megawatts);
    IF NEW.demand_mw IS DISTINCT FROM NEW.demand_megawatts THEN
        RAISE EXCEPTION 'readings: demand_mw % and demand_megawatts % disagree', NEW.demand_mw, NEW.demand_megawatts
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""
TRIGGER = (
    "CREATE TRIGGER readings_same_demand BEFORE INSERT OR UPDATE ON readings"
    " FOR EACH ROW EXECUTE FUNCTION readings_same_demand()"
)


def upgrade() -> None:
    """One transaction: code that knows only the new column must never meet the old one without its trigger."""
    op.execute("DROP TRIGGER readings_same_demand ON readings")
    op.execute("DROP FUNCTION readings_same_demand()")
    op.execute("ALTER TABLE readings DROP COLUMN demand_mw")


def downgrade() -> None:
    """The old column comes back, filled from the new one. Every part can be run again after an interruption."""
    op.execute("ALTER TABLE readings ADD COLUMN IF NOT EXISTS demand_mw double precision")
    op.execute(FUNCTION)
    op.execute("DROP TRIGGER IF EXISTS readings_same_demand ON readings")
    op.execute(TRIGGER)
    with op.get_context().autocommit_block():
        _backfill()
        op.execute(
            "ALTER TABLE readings"
            " DROP CONSTRAINT IF EXISTS readings_demand_mw_present,"
            " DROP CONSTRAINT IF EXISTS readings_demand_positive,"
            " ADD CONSTRAINT readings_demand_mw_present CHECK (demand_mw IS NOT NULL) NOT VALID,"
            " ADD CONSTRAINT readings_demand_positive CHECK (demand_mw > 0) NOT VALID"
        )
        op.execute("ALTER TABLE readings VALIDATE CONSTRAINT readings_demand_mw_present")
        op.execute("ALTER TABLE readings VALIDATE CONSTRAINT readings_demand_positive")
        op.execute("ALTER TABLE readings ALTER COLUMN demand_mw SET NOT NULL")
        op.execute("ALTER TABLE readings DROP CONSTRAINT readings_demand_mw_present")


def _backfill() -> None:
    """Copy the new column into the old one, a batch a transaction, in the order that running code locks rows."""
    batch = text(
        "WITH batch AS (SELECT at, region FROM readings WHERE (at, region) > (:at, :region) AND demand_mw IS NULL"
        " ORDER BY at, region LIMIT :rows FOR UPDATE),"
        " done AS (UPDATE readings SET demand_mw = demand_megawatts FROM batch"
        " WHERE (readings.at, readings.region) = (batch.at, batch.region) RETURNING readings.at, readings.region)"
        " SELECT at, region FROM done ORDER BY at DESC, region DESC LIMIT 1"
    )
    last = {"at": op.get_bind().scalar(text("SELECT '-infinity'::timestamptz::text")), "region": ""}
    while (row := op.get_bind().execute(batch, {**last, "rows": BATCH}).one_or_none()) is not None:
        last = {"at": row.at, "region": row.region}
