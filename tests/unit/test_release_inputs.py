"""The hash of a deployment's inputs: what changes it, and what must not."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from release import inputs, settings
from release.errors import ReleaseError
from release.keys import KEYS, DataProvider, ServiceType
from release.manifest import Flags, Manifest, Release, ReleaseType, Schema
from release.plan import Flow
from release.settings import Settings

IMAGE = "registry.example/forecast@sha256:" + "a" * 64
OTHER = "registry.example/forecast@sha256:" + "b" * 64


def release(sha256: str = "1" * 64, flags: str = "2" * 64) -> Release:
    manifest = Manifest(
        version="1.0.0",
        type=ReleaseType.MAJOR,
        commit="0" * 40,
        dirty=False,
        images={"forecast": IMAGE},
        schema_=Schema(revision="0001", compatible=("0001",)),
        flags=Flags(file="flags.json", sha256=flags),
    )
    return Release(folder=Path("a"), manifest=manifest, text="", sha256=sha256, flags="{}")


def configured() -> Settings:
    secrets = {"release:ownerPassword": "o" * 16, "release:appPassword": "a" * 16}
    plain = {"release:folder": "a", "release:stepsImage": IMAGE, "release:databaseImage": IMAGE}
    return settings.load({**plain, **secrets}, secrets)


CHANGED: dict[str, Any] = {
    "flow": Flow.PRODUCTION,
    "folder": Path("b"),
    "steps_image": OTHER,
    "database_image": OTHER,
    "context": "other",
    "data_provider": DataProvider.URL,
    "backup_provider": "another",
    "service_type": ServiceType.NODE_PORT,
    "storage_class": "fast",
    "database_storage": "20Gi",
    "backup_storage": "20Gi",
}
STAYS = {"folder", "context", "storage_class", "database_storage", "backup_storage"}


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_settings_that_shape_jobs_and_workloads_change_it_and_no_others(field: str) -> None:
    before = configured()
    value = CHANGED[field] if field in CHANGED else getattr(before, field) + 1
    after = replace(before, **{field: value})
    same = inputs.digest(release(), after, program="p") == inputs.digest(release(), before, program="p")
    assert same == (field in STAYS)


def test_every_setting_comes_from_exactly_one_key() -> None:
    assert sorted(key.field for key in KEYS if key.field) == sorted(field.name for field in fields(Settings))


def test_manifest_flags_and_program_change_it_and_the_folder_does_not() -> None:
    def digest(given: Release, program: str = "p") -> str:
        return inputs.digest(given, configured(), program=program)

    base = digest(release())
    assert len({base, digest(release(sha256="3" * 64)), digest(release(flags="4" * 64)), digest(release(), "q")}) == 4
    assert digest(replace(release(), folder=Path("elsewhere"))) == base


def project(folder: Path) -> Path:
    (folder / "components").mkdir()
    (folder / "__main__.py").write_text("main", encoding="utf-8")
    (folder / "components" / "a.py").write_text("one", encoding="utf-8")
    (folder / "components" / "b.py").write_text("two", encoding="utf-8")
    (folder / "release" / "cli").mkdir(parents=True)
    (folder / "release" / "plan.py").write_text("plan", encoding="utf-8")
    (folder / "release" / "cli" / "up.py").write_text("watch", encoding="utf-8")
    return folder


def test_the_program_is_its_main_file_and_its_components_and_where_a_line_stands(tmp_path: Path) -> None:
    root = project(tmp_path)
    seen = [inputs.program_digest(root)]
    (root / "components" / "notes.txt").write_text("no program", encoding="utf-8")
    assert inputs.program_digest(root) == seen[0]
    # The same text moved from one module into the next is another program.
    (root / "components" / "a.py").write_text("onetw", encoding="utf-8")
    (root / "components" / "b.py").write_text("o", encoding="utf-8")
    seen.append(inputs.program_digest(root))
    (root / "__main__.py").write_text("other", encoding="utf-8")
    seen.append(inputs.program_digest(root))
    (root / "components" / "b.py").rename(root / "components" / "c.py")
    seen.append(inputs.program_digest(root))
    (root / "release" / "plan.py").write_text("another order", encoding="utf-8")
    seen.append(inputs.program_digest(root))
    assert len(set(seen)) == 5


def test_the_command_line_is_no_part_of_the_program(tmp_path: Path) -> None:
    root = project(tmp_path)
    before = inputs.program_digest(root)
    (root / "release" / "cli" / "up.py").write_text("watch closely", encoding="utf-8")
    assert inputs.program_digest(root) == before


def test_a_folder_without_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"__main__\.py: the program cannot be read"):
        inputs.program_digest(tmp_path)
