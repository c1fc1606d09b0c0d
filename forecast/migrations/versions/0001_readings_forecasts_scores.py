"""Readings, forecasts and scores."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
phase = "expand"

# The keys are named: statements of running code refer to them by name, so that a later revision can widen them.
UP = (
    """
    CREATE TABLE readings (
        at timestamptz CONSTRAINT readings_pkey PRIMARY KEY,
        demand_mw double precision NOT NULL CONSTRAINT readings_demand_positive CHECK (demand_mw > 0),
        source text NOT NULL DEFAULT 'meter',
        recorded_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE forecasts (
        start timestamptz NOT NULL,
        at timestamptz NOT NULL,
        demand_mw double precision NOT NULL,
        model text NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT forecasts_pkey PRIMARY KEY (start, at)
    )
    """,
    "CREATE INDEX forecasts_at ON forecasts (at)",
    """
    CREATE TABLE scores (
        start timestamptz NOT NULL,
        at timestamptz NOT NULL,
        forecast_mw double precision NOT NULL,
        actual_mw double precision NOT NULL CONSTRAINT scores_actual_positive CHECK (actual_mw > 0),
        CONSTRAINT scores_pkey PRIMARY KEY (start, at)
    )
    """,
    "CREATE INDEX scores_at ON scores (at)",
)


def upgrade() -> None:
    """Create the three tables."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop the three tables; their rows go with them."""
    for table in ("scores", "forecasts", "readings"):
        op.execute(f"DROP TABLE {table}")
