"""Releases that only the tests know: real images, made as the real ones are, with faults that a row or a table causes.

The causes lie in the database, so that a test can take them away and let the same command go through.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from release.manifest import Flags, Manifest, ReleaseType, Schema, load
from tools import assemble, images, paths, source_tree

PLANTED = "1.3.0"
UNBUILT = "1.4.0"

_MIGRATION = '''
"""Planted: fails, hangs or is slow, as the tables test_fail, test_hang and test_slow say."""

from alembic import op
from sqlalchemy import text

revision = "0900"
down_revision = "0002"


def upgrade() -> None:
    tables = set(op.get_bind().execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars())
    if "test_fail" in tables:
        raise RuntimeError("planted: this migration says no")
    if "test_hang" in tables:
        op.execute("SELECT pg_sleep(3600)")
    if "test_slow" in tables:
        op.execute("SELECT pg_sleep(12)")
    op.execute("ALTER TABLE readings ADD COLUMN planted integer")


def downgrade() -> None:
    op.execute("ALTER TABLE readings DROP COLUMN planted")
'''

# The pods of this release get ready only once the table test_ready is there.
_READINESS = '\n\n_NEEDS = (*_NEEDS, "SELECT 1 FROM test_ready LIMIT 0")\n'


def planted() -> Path:
    """The folder of release 1.3.0, made from 1.1.0 with the planted migration and readiness."""
    base = source_tree.load("1.1.0")
    built = assemble.write_tree("1.1.0")
    folder = paths.LOCAL / "build" / PLANTED
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, folder)
    (folder / "migrations/versions/0900_planted.py").write_text(_MIGRATION)
    repository = folder / "energy_forecast/repository.py"
    text = repository.read_text()
    assert "for statement in _NEEDS" in text
    repository.write_text(text + _READINESS)
    commit = assemble.head(paths.ROOT)
    baked = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**baked, "version": PLANTED}))
    image = images.build_forecast(folder, PLANTED, commit.sha)
    release = paths.RELEASES / PLANTED
    release.mkdir(parents=True, exist_ok=True)
    flags = (folder / "flags.json").read_bytes()
    (release / "flags.json").write_bytes(flags)
    manifest = Manifest(
        version=PLANTED,
        type=ReleaseType.MINOR,
        commit=commit.sha,
        dirty=commit.dirty,
        images={"forecast": image},
        schema_=Schema(revision="0900", compatible=("0900", *base.definition.schema_.compatible)),
        flags=Flags(file="flags.json", sha256=hashlib.sha256(flags).hexdigest()),
        evidence=(),
    )
    (release / "release.yaml").write_text(manifest.to_yaml())
    return release


def unbuilt(base: Path) -> Path:
    """The folder of release 1.4.0: `base` again, but with an image that no registry has."""
    release = paths.RELEASES / UNBUILT
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(base, release)
    manifest = load(base).manifest
    repository = manifest.images["forecast"].partition("@")[0]
    missing = {"forecast": f"{repository}@sha256:{hashlib.sha256(UNBUILT.encode()).hexdigest()}"}
    changed = manifest.model_copy(update={"version": UNBUILT, "images": missing})
    (release / "release.yaml").write_text(changed.to_yaml())
    return release
