"""The migrations' folder: one line of revisions, each with a way down, none needing more than the migrate step has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from energy_forecast.migrations import copy_scripts

AVAILABLE = {"alembic", "sqlalchemy", "psycopg"} | set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def line(tree: Path) -> list[Script]:
    """The revisions from the oldest to the newest."""
    config = Config()
    config.set_main_option("script_location", str(tree / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    return list(scripts.walk_revisions())[::-1]


def functions(script: Script) -> dict[str, ast.FunctionDef]:
    module = ast.parse(Path(script.path).read_text(encoding="utf-8"))
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


def test_the_revisions_are_one_line_of_ascending_numbers(line: list[Script]) -> None:
    assert [script.revision for script in line] == [f"{number:04}" for number in range(1, len(line) + 1)]
    assert [script.down_revision for script in line] == [None, *(script.revision for script in line[:-1])]
    for script in line:
        assert Path(script.path).name.startswith(f"{script.revision}_")


def test_every_revision_has_a_real_way_up_and_down(line: list[Script]) -> None:
    for script in line:
        for name in ("upgrade", "downgrade"):
            body = functions(script)[name].body
            assert ast.get_docstring(functions(script)[name]), (script.revision, name)
            assert any(isinstance(node, ast.Expr | ast.For | ast.With) for node in body[1:]), (script.revision, name)


def test_every_revision_says_whether_it_expands_or_contracts(line: list[Script]) -> None:
    for script in line:
        assert script.module.phase in {"expand", "contract"}, script.revision


def test_only_a_contract_takes_columns_or_tables_away(line: list[Script]) -> None:
    for script in line:
        upgrade = ast.unparse(functions(script)["upgrade"])
        takes_away = "DROP COLUMN" in upgrade or ("DROP TABLE" in upgrade and script.revision == "0001")
        assert takes_away == (script.module.phase == "contract"), script.revision


def test_no_revision_imports_what_the_migrate_step_has_not(line: list[Script]) -> None:
    for script in line:
        for node in ast.walk(ast.parse(Path(script.path).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."]
            assert {name.split(".")[0] for name in names} <= AVAILABLE, script.revision


def test_the_folder_is_handed_out_whole(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "migrations"
    command = [sys.executable, "-m", "energy_forecast.migrations", str(target)]
    for _ in range(2):
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    source = tree / "migrations"
    expected = {
        path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.suffix in {".py", ".mako"}
    }
    assert {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()} == expected


def test_a_folder_that_cannot_be_written_is_an_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    command = [sys.executable, "-m", "energy_forecast.migrations"]
    done = subprocess.run([*command, str(tmp_path / "file")], cwd=tree, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be copied" in done.stderr) == (1, True)
    assert subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode == 2
    with pytest.raises(FileNotFoundError):
        copy_scripts(tmp_path / "empty", tmp_path / "target")
