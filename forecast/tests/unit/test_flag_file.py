"""Flags in flagd's format."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from energy_forecast.errors import FlagError
from energy_forecast.flags import FALLBACKS, Flag, FlagFile, read_flags

ON_OFF = {"on": True, "off": False}


def flag(**changes: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "on", **changes}


def write(path: Path, **flags: Any) -> None:
    # Another file in the place of the old one, as a mounted ConfigMap does it.
    new = path.with_suffix(".new")
    new.write_text(
        json.dumps({"flags": {name.replace("_", "-"): value for name, value in flags.items()}}), encoding="utf-8"
    )
    new.replace(path)


def test_the_packaged_file_declares_exactly_the_flags_that_the_code_reads(tree: Path) -> None:
    packaged = read_flags((tree / "flags.json").read_text(encoding="utf-8"))
    assert set(packaged) == {str(each) for each in Flag}
    assert packaged == {str(name): value for name, value in FALLBACKS.items()}


def test_every_flag_is_read_somewhere(tree: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (tree / "energy_forecast").glob("*.py"))
    for each in Flag:
        assert re.search(rf"\(Flag\.{each.name}\)", code), each


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (flag(), True),
        (flag(defaultVariant="off"), False),
        (flag(state="DISABLED"), None),
        (flag(defaultVariant=None), None),
        (flag(targeting={}), True),
        (flag(variants={"a": "x", "b": "y"}, defaultVariant="b"), "y"),
    ],
)
def test_a_flag_has_its_default_variants_value(given: dict[str, Any], value: bool | str | None) -> None:
    assert read_flags(json.dumps({"flags": {"some": given}})) == {"some": value}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (flag(targeting={"if": [True, "on"]}), "flag some has targeting rules"),
        (flag(state="enabled"), "state 'enabled'"),
        (flag(variants={}), "no variants"),
        (flag(variants={"on": True, "off": "no"}), "neither all booleans nor all texts"),
        (flag(variants={"on": 1, "off": 0}), "neither all booleans nor all texts"),
        (flag(defaultVariant="maybe"), "'maybe', none of its variants on, off"),
        (True, "flag some is not an object"),
    ],
)
def test_what_breaks_the_format_is_refused_by_name(given: Any, reason: str) -> None:
    with pytest.raises(FlagError, match=reason):
        read_flags(json.dumps({"flags": {"some": given}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flags": []}'])
def test_a_file_without_flags_is_refused(text: str) -> None:
    with pytest.raises(FlagError, match=r"JSON|no object"):
        read_flags(text)


def test_a_flip_is_seen_and_a_bad_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "flags.json"
    write(path, unit_gw=flag(defaultVariant="off"))
    flags = FlagFile(path)
    assert not flags.enabled(Flag.UNIT_GW)
    write(path, unit_gw=flag())
    assert flags.enabled(Flag.UNIT_GW)
    write(path, unit_gw=flag(targeting={"if": []}, state="DISABLED"), other=flag(state="?"))
    path.write_text("{", encoding="utf-8")
    os.utime(path, (2, 2))
    for _ in range(3):
        assert flags.enabled(Flag.UNIT_GW)
    path.unlink()
    assert flags.enabled(Flag.UNIT_GW)
    refused = [record for record in caplog.records if record.getMessage() == "flags_refused"]
    assert len(refused) == 2
    write(path, unit_gw=flag(defaultVariant="off"))
    assert not flags.enabled(Flag.UNIT_GW)


def test_without_a_file_or_an_entry_the_fallback_holds(tmp_path: Path) -> None:
    assert not FlagFile(None).enabled(Flag.UNIT_GW)
    path = tmp_path / "flags.json"
    write(path)
    assert not FlagFile(path).enabled(Flag.UNIT_GW)


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    with pytest.raises(FlagError, match="cannot be read"):
        FlagFile(path)
    write(path, unit_gw=flag(variants={"on": "yes"}))
    with pytest.raises(FlagError, match="unit-gw must have bool variants"):
        FlagFile(path)
