"""release.yaml and the folder it stands in: what is accepted, and what each damage is called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from release import manifest
from release.errors import ManifestError
from release.manifest import Evidence, Flags, Manifest, ReleaseType, Schema

IMAGE = "registry.example:5000/energy/forecast@sha256:" + "a" * 64
FLAGS = '{"flags": {}}'
REPORT = "<testsuite/>"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def document() -> dict[str, Any]:
    return {
        "apiVersion": "release.energy/v1",
        "version": "1.1.0",
        "type": "minor",
        "commit": "0" * 40,
        "dirty": False,
        "images": {"forecast": IMAGE},
        "schema": {"revision": "0002", "compatible": ["0001", "0002"], "contract": None},
        "flags": {"file": "flags.json", "sha256": sha256(FLAGS)},
        "evidence": [
            {
                "item": "unit",
                "file": "evidence/unit.xml",
                "format": "junit",
                "sha256": sha256(REPORT),
                "producer": "pytest 8.4",
            }
        ],
    }


def write(folder: Path, content: dict[str, Any] | None = None) -> Path:
    (folder / "evidence").mkdir(exist_ok=True)
    (folder / "release.yaml").write_text(yaml.safe_dump(content or document()), encoding="utf-8")
    (folder / "flags.json").write_text(FLAGS, encoding="utf-8")
    (folder / "evidence" / "unit.xml").write_text(REPORT, encoding="utf-8")
    return folder


def test_a_whole_release_is_loaded_with_the_text_and_hash_of_its_manifest(tmp_path: Path) -> None:
    release = manifest.load(write(tmp_path))
    text = (tmp_path / "release.yaml").read_text(encoding="utf-8")
    assert (release.text, release.sha256, release.flags) == (text, sha256(text), FLAGS)
    assert release.manifest.images == {"forecast": IMAGE}
    assert release.manifest.schema_.compatible == ("0001", "0002")


def test_text_that_looks_like_a_number_stays_text() -> None:
    text = (
        yaml.safe_dump(document())
        .replace("'0002'", "0002")
        .replace("'0001'", "0001")
        .replace(f"'{'0' * 40}'", "0" * 40)
    )
    read = manifest.parse(text)
    assert (read.schema_.revision, read.schema_.compatible, read.commit) == ("0002", ("0001", "0002"), "0" * 40)


MALFORMED = [
    ("no YAML", "images: [", "release.yaml:1:10: expected the node content"),
    ("empty", "", "release.yaml: must be a mapping"),
    ("a list", "- a\n", "release.yaml: must be a mapping"),
    ("a key twice", "version: 1.0.0\nversion: 1.0.1\n", "release.yaml:2:1: key 'version' twice"),
    ("a key twice inside", "images:\n  forecast: a\n  forecast: b\n", "release.yaml:3:3: key 'forecast' twice"),
    ("an alias", "a: &x [1]\nb: *x\n", "aliases are not allowed"),
    ("two documents", "a: 1\n---\nb: 1\n", "release.yaml:2:1"),
    ("a key that is a list", "[a]: 1\n", "a key must be plain text"),
    ("an object tag", "a: !!python/object:os.system {}\n", "could not determine a constructor"),
    ("a control character", "a: \x00\n", "special characters are not allowed"),
    ("too deep", "[" * 6000, "release.yaml: no YAML"),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_malformed_yaml_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text)
    assert expected in str(caught.value)


DAMAGES: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown key", {"colour": "red"}, "colour: is no key of this format"),
    ("an unknown key inside", {"flags": {"file": "f", "sha256": "a" * 64, "x": 1}}, "flags.x: is no key"),
    (
        "another format",
        {"apiVersion": "release.energy/v2"},
        "apiVersion: 'release.energy/v2' must be release.energy/v1",
    ),
    ("no version", {"version": "1.1"}, "version: '1.1' is no semantic version; write it like 1.4.0"),
    ("a v", {"version": "v1.1.0"}, "version: 'v1.1.0' is no semantic version"),
    ("build metadata", {"version": "1.1.0+7"}, "version: '1.1.0+7' carries build metadata (+7)"),
    ("a long version", {"version": "1.1.0-" + "a" * 40}, "too long for the names of Jobs"),
    ("an unknown type", {"type": "huge"}, "type: Input should be 'major', 'minor', 'patch' or 'hotfix'"),
    ("a type that disagrees", {"type": "major"}, "type major needs a version X.0.0, this is 1.1.0"),
    ("a patch that disagrees", {"type": "patch"}, "type patch needs a version X.Y.Z with Z above 0, this is 1.1.0"),
    ("a short commit", {"commit": "abc1234"}, "commit: 'abc1234' must match"),
    ("dirty as text", {"dirty": "no"}, "dirty: 'no' must be true or false"),
    ("an image by tag", {"images": {"forecast": "forecast:1.1.0"}}, "images.forecast: 'forecast:1.1.0' is not pinned"),
    ("a short digest", {"images": {"forecast": "forecast@sha256:abc"}}, "is not pinned"),
    ("another digest", {"images": {"forecast": "forecast@md5:" + "a" * 64}}, "is not pinned"),
    ("no image of its own", {"images": {"other": IMAGE}}, "images lacks 'forecast'"),
    (
        "a revision that its image refuses",
        {"schema": {"revision": "0003", "compatible": ["0002"], "contract": None}},
        "schema: compatible ['0002'] lacks the release's own revision '0003'",
    ),
    (
        "an absolute path",
        {"flags": {"file": "/etc/passwd", "sha256": "a" * 64}},
        "flags.file: '/etc/passwd' is no plain path",
    ),
    (
        "a way out",
        {"flags": {"file": "../flags.json", "sha256": "a" * 64}},
        "flags.file: '../flags.json' is no plain path",
    ),
    ("a hidden way out", {"flags": {"file": "a/../../b", "sha256": "a" * 64}}, "is no plain path"),
    ("a crooked path", {"flags": {"file": "./flags.json", "sha256": "a" * 64}}, "is no plain path"),
    ("a short hash", {"flags": {"file": "flags.json", "sha256": "abc"}}, "flags.sha256: 'abc' must match"),
    (
        "one file for two things",
        {"flags": {"file": "evidence/unit.xml", "sha256": "a" * 64}},
        "the same file is named for two things: evidence/unit.xml",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_one_wrong_value_is_named_with_its_key_and_rule(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(yaml.safe_dump({**document(), **change}))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("release.yaml: ")
    assert expected in caught.value.problems[0]


def test_every_problem_is_listed_at_once() -> None:
    broken = {key: value for key, value in document().items() if key != "flags"} | {"commit": "x", "dirty": 1}
    with pytest.raises(ManifestError) as caught:
        manifest.parse(yaml.safe_dump(broken))
    keys = [problem.split(": ")[1] for problem in caught.value.problems]
    assert sorted(keys) == ["commit", "dirty", "flags"]


def test_changed_missing_and_escaping_files_are_all_named(tmp_path: Path) -> None:
    content = document()
    for number, name in enumerate(("gone.xml", "out.xml", "folder")):
        content["evidence"].append({**content["evidence"][0], "item": f"item-{number}", "file": name})
    folder = tmp_path / "release"
    folder.mkdir()
    write(folder, content)
    (folder / "flags.json").write_text('{"flags": 1}', encoding="utf-8")
    (folder / "evidence" / "unit.xml").write_text("<other/>", encoding="utf-8")
    (tmp_path / "secret").write_text(REPORT, encoding="utf-8")
    (folder / "out.xml").symlink_to(tmp_path / "secret")
    (folder / "folder").mkdir()
    with pytest.raises(ManifestError) as caught:
        manifest.load(folder)
    assert [problem.split(" (")[0] for problem in caught.value.problems] == [
        "flags.json: flags.sha256: changed after assembling",
        "gone.xml: evidence[0].file: the file is missing",
        "out.xml: evidence[1].file: is a link that leaves the release folder",
        "folder: evidence[2].file: is no regular file",
        "evidence/unit.xml: evidence[3].sha256: changed after assembling",
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("[]", "must hold a JSON object"), ("{", "flags.json: flags.file: Expecting"), ("\ufeff{}", "BOM")],
)
def test_flags_that_are_no_json_object_are_refused(tmp_path: Path, flags: str, expected: str) -> None:
    write(tmp_path, {**document(), "flags": {"file": "flags.json", "sha256": sha256(flags)}})
    (tmp_path / "flags.json").write_text(flags, encoding="utf-8")
    with pytest.raises(ManifestError, match=expected):
        manifest.load(tmp_path)


def test_what_a_config_map_cannot_hold_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "flags.json").write_text(" " * (manifest.FLAGS_LIMIT + 1), encoding="utf-8")
    with pytest.raises(ManifestError, match="is larger than 512 KiB"):
        manifest.load(tmp_path)
    (tmp_path / "release.yaml").write_text("#" * (manifest.MANIFEST_LIMIT + 1), encoding="utf-8")
    with pytest.raises(ManifestError, match="is larger than 256 KiB"):
        manifest.load(tmp_path)


def test_a_folder_that_is_none_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder; assemble it with `make up VERSION=…`"):
        manifest.load(tmp_path / "1.0.0")
    with pytest.raises(ManifestError, match=r"release.yaml: the file is missing; assemble it"):
        manifest.load(tmp_path)


def test_a_folder_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    real = tmp_path / "1.1.0"
    real.mkdir()
    write(real)
    (tmp_path / "current").symlink_to(real)
    assert manifest.load(tmp_path / "current").manifest.version == "1.1.0"


versions = st.builds("{}.{}.{}".format, *[st.integers(0, 99)] * 3)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
revisions = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)


def type_of(version: str) -> ReleaseType:
    _, minor, patch = version.split(".")
    if patch != "0":
        return ReleaseType.PATCH
    return ReleaseType.MINOR if minor != "0" else ReleaseType.MAJOR


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    version = draw(versions)
    revision = draw(revisions)
    items = draw(st.lists(names, unique=True, max_size=4))
    return Manifest(
        version=version,
        type=type_of(version),
        commit=draw(st.text("0123456789abcdef", min_size=40, max_size=40)),
        dirty=draw(st.booleans()),
        images={
            "forecast": IMAGE,
            **{name: f"r/{name}@sha256:{draw(hashes)}" for name in draw(st.lists(names, max_size=3))},
        },
        schema_=Schema(revision=revision, compatible=(revision, *draw(st.lists(revisions, max_size=3)))),
        flags=Flags(file="flags.json", sha256=draw(hashes)),
        evidence=tuple(
            Evidence(
                item=item,
                file=f"evidence/{item}.xml",
                format="junit",
                sha256=draw(hashes),
                producer=draw(st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=20)),
            )
            for item in items
        ),
    )


@given(manifests())
def test_what_is_written_reads_back_the_same(written: Manifest) -> None:
    assert manifest.parse(written.to_yaml()) == written


@given(manifests(), st.randoms(use_true_random=False))
def test_equal_manifests_have_equal_text_whatever_order_they_were_given_in(written: Manifest, random: Any) -> None:
    images, evidence = list(written.images.items()), list(written.evidence)
    random.shuffle(images)
    random.shuffle(evidence)
    other = Manifest(**{**dict(written), "images": dict(images), "evidence": tuple(evidence)})
    assert other.to_yaml() == written.to_yaml()
