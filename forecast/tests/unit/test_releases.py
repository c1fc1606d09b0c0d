"""The releases beside the base: well described, well ordered, and each what its description says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTES = {
    "overview": str,
    "new_features": list,
    "improvements": list,
    "bug_fixes": list,
    "security_updates": list,
    "known_issues": list,
    "upgrade_instructions": str,
}


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_each_says_what_it_is(releases: dict[str, dict[str, Any]]) -> None:
    assert {"1.0.0", "1.1.0", "1.1.1", "1.1.2", "1.2.0", "2.0.0"} <= set(releases)
    for version, release in releases.items():
        assert set(release) == {"version", "type", "after", "schema", "delete", "notes"}
        assert release["version"] == version
        assert release["after"] is None or release["after"] in releases
        assert set(release["schema"]) == {"revision", "compatible", "contract"}
        assert {name: type(value) for name, value in release["notes"].items()} == NOTES
        for value in release["notes"].values():
            assert all(isinstance(item, str) and item for item in ([value] if isinstance(value, str) else value))


def test_its_type_is_the_step_from_the_one_before(releases: dict[str, dict[str, Any]]) -> None:
    for version, release in releases.items():
        before = number(release["after"]) if release["after"] else (0, 0, 0)
        changed = next(
            index for index, pair in enumerate(zip(before, number(version), strict=True)) if pair[0] != pair[1]
        )
        assert release["type"] == ("major", "minor", "patch")[changed], version
        assert number(version) > before


def test_an_overlay_changes_what_it_carries(releases: dict[str, dict[str, Any]], tree: Path, compose: Any) -> None:
    for version, release in releases.items():
        overlay = tree / "releases" / version / "files"
        if release["after"] is None:
            assert not overlay.exists()
            continue
        before = compose(release["after"])
        files = [path for path in overlay.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert overlay / "CHANGELOG.md" in files
        for path in files:
            old = before / path.relative_to(overlay)
            assert not old.exists() or old.read_bytes() != path.read_bytes(), path


def test_the_schema_it_needs_is_the_newest_that_it_brings_before_a_contract(
    releases: dict[str, dict[str, Any]], compose: Callable[[str], Path]
) -> None:
    for version, release in releases.items():
        schema = release["schema"]
        scripts = {path.name[:4]: path for path in (compose(version) / "migrations" / "versions").glob("*.py")}
        contracts = [name for name, path in scripts.items() if 'phase = "contract"' in path.read_text(encoding="utf-8")]
        assert contracts == ([schema["contract"]] if schema["contract"] else []), version
        assert schema["revision"] == max(set(scripts) - set(contracts))
        assert schema["revision"] in schema["compatible"]


def test_two_neighbours_share_a_schema(releases: dict[str, dict[str, Any]]) -> None:
    for version, release in releases.items():
        if release["after"]:
            # While one is rolled out both run, on the schema that the newer one needs.
            assert release["schema"]["revision"] in releases[release["after"]]["schema"]["compatible"], version


def test_the_changelog_names_every_release_up_to_it(
    releases: dict[str, dict[str, Any]], compose: Callable[[str], Path]
) -> None:
    for version in releases:
        changelog = (compose(version) / "CHANGELOG.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)
        expected = []
        each: str | None = version
        while each:
            expected.append(each)
            each = releases[each]["after"]
        assert headings == expected
        assert changelog.startswith("# Changelog\n")
        assert "\n## [Unreleased]\n" in changelog
