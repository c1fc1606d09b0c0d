"""For developers: `alembic -c forecast/alembic.ini upgrade head` against the database in DATABASE_URL_FILE.

A release does not use this file: its migrate step drives the same scripts with locks, retries and progress.
"""

from __future__ import annotations

import os
from pathlib import Path

from alembic import context
from sqlalchemy import create_engine, make_url

url = make_url(Path(os.environ["DATABASE_URL_FILE"]).read_text(encoding="utf-8").strip())

with create_engine(url.set(drivername="postgresql+psycopg")).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
