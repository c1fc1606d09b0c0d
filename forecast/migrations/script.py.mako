"""${message}"""

from alembic import op

revision = "${up_revision}"
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    """Says what it adds, and why running code does not notice."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """Says what becomes of rows that the old schema cannot hold."""
    ${downgrades if downgrades else "raise NotImplementedError"}
