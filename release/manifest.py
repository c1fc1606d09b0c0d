"""What an assembled release is: the models of `release.yaml`, and a release folder loaded and verified.

Assembling one belongs to `tools`; whether its evidence is good enough belongs to the gate. Here is only decided whether
the folder is whole: the manifest well formed, every file it names inside the folder and unchanged.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import semver
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from release.errors import ManifestError

MANIFEST_NAME = "release.yaml"
API_VERSION = "release.energy/v1"

# Manifest and flags travel to the cluster in ConfigMaps, which hold 1 MiB with everything around them.
MANIFEST_LIMIT = 256 * 1024
FLAGS_LIMIT = 512 * 1024

_PINNED = re.compile(
    r"(?:[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}"
)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class ReleaseType(StrEnum):
    """The four kinds of release of the guide."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"
    HOTFIX = "hotfix"


def parse_version(text: str) -> semver.Version:
    """Read a semantic version; raises ValueError with the rule for everything that is none.

    Build metadata is refused: it has no order, and neither a Job's name nor an image's tag can carry a `+`.
    """
    try:
        version = semver.Version.parse(text)
    except (ValueError, TypeError):
        raise ValueError(f"{text!r} is no semantic version; write it like 1.4.0") from None
    if version.build is not None:
        raise ValueError(f"{text!r} carries build metadata (+{version.build}), which has no order; leave it out")
    if len(text) > 40:
        raise ValueError(f"{text!r} has more than 40 characters, too long for the names of Jobs")
    return version


def check_image(reference: str) -> str:
    """Return an image reference that is pinned by digest; raises ValueError with the rule otherwise."""
    if not _PINNED.fullmatch(reference):
        raise ValueError(f"{reference!r} is not pinned; write it like registry/name@sha256:<64 hex digits>")
    return reference


def _check_version(text: str) -> str:
    parse_version(text)
    return text


def _check_relative(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or str(path) != text or text == ".":
        raise ValueError(f"{text!r} is no plain path inside the release folder; write it like evidence/unit.xml")
    return text


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name; use lower-case letters, digits and dashes, at most 40")
    return text


VersionText = Annotated[str, AfterValidator(_check_version)]
ImageReference = Annotated[str, AfterValidator(check_image)]
RelativePath = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_relative)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, AfterValidator(_check_name)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,32}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Schema(_Model):
    """The database revision that a release migrates to, and those that its image runs on."""

    revision: Revision
    compatible: tuple[Revision, ...] = Field(strict=False, min_length=1)
    contract: Revision | None = None

    @model_validator(mode="after")
    def _runs_on_its_own_revision(self) -> Self:
        if self.revision not in self.compatible:
            raise ValueError(
                f"compatible {list(self.compatible)} lacks the release's own revision {self.revision!r}: its pods "
                "would refuse the schema that its own migration makes; add it"
            )
        return self


class Flags(_Model):
    """The feature flags' file (flagd's format) and its content's hash."""

    file: RelativePath
    sha256: Sha256


class Evidence(_Model):
    """One file of evidence: which checklist item it is for, its format, and what wrote it."""

    item: Name
    file: RelativePath
    format: Name
    sha256: Sha256
    producer: Annotated[str, Field(min_length=1, max_length=200)]


class Manifest(_Model):
    """The content of `release.yaml`; images and evidence are kept sorted, so equal releases have equal text."""

    api_version: Literal["release.energy/v1"] = Field(default="release.energy/v1", alias="apiVersion")
    version: VersionText
    type: ReleaseType = Field(strict=False)
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    dirty: bool
    images: dict[Name, ImageReference]
    # `schema` is a deprecated method of BaseModel, so the attribute has another name than the key.
    schema_: Schema = Field(alias="schema")
    flags: Flags
    evidence: tuple[Evidence, ...] = Field(strict=False, default=())

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        version = parse_version(self.version)
        zeros = {ReleaseType.MAJOR: version.minor == version.patch == 0, ReleaseType.MINOR: version.patch == 0}
        if not zeros.get(self.type, version.patch > 0):
            shape = {ReleaseType.MAJOR: "X.0.0", ReleaseType.MINOR: "X.Y.0"}.get(self.type, "X.Y.Z with Z above 0")
            raise ValueError(f"type {self.type} needs a version {shape}, this is {self.version}: change one of the two")
        if "forecast" not in self.images:
            raise ValueError("images lacks 'forecast', the platform's own image")
        files = [item.file for item in self.evidence] + [self.flags.file, MANIFEST_NAME]
        twice = sorted({file for file in files if files.count(file) > 1})
        if twice:
            raise ValueError(f"the same file is named for two things: {', '.join(twice)}")
        return self

    def model_post_init(self, _context: Any) -> None:
        """Sort what has no order of its own; the model is frozen, hence the detour."""
        object.__setattr__(self, "images", dict(sorted(self.images.items())))
        object.__setattr__(self, "evidence", tuple(sorted(self.evidence, key=lambda e: (e.item, e.file))))

    def to_yaml(self) -> str:
        """The text of `release.yaml`: the same manifest always gives the same bytes."""
        data = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)

    def semantic_version(self) -> semver.Version:
        """The version in a form that compares."""
        return parse_version(self.version)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release folder that was loaded and verified.

    `text` is `release.yaml` as it lies on disk, `sha256` its hash (64 hex digits), `flags` the flags file's text.
    """

    folder: Path
    manifest: Manifest
    text: str
    sha256: str
    flags: str


class _Loader(yaml.SafeLoader):
    """YAML without its surprises: no duplicate keys, no aliases, and only true, false and null are not text.

    A revision `0002` would otherwise be the number 2, and a commit of digits only a number as well.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not allowed", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])


def parse(text: str, *, source: str = MANIFEST_NAME) -> Manifest:
    """Read a manifest's text; raises ManifestError with every problem, each with `source` and the key."""
    title = "the release manifest cannot be used"
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader, made narrower
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ManifestError(title, [f"{where}: {error.problem or 'no YAML'}"]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestError(title, [f"{source}: no YAML: {str(error).splitlines()[0]}"]) from error
    if not isinstance(data, dict):
        raise ManifestError(title, [f"{source}: must be a mapping with the keys of {API_VERSION}"])
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise ManifestError(title, [_problem(source, detail) for detail in error.errors()]) from error


def load(folder: Path) -> Release:
    """Load a release folder and verify every file that its manifest names.

    Raises ManifestError that lists all problems, each with the file and the key.
    """
    title = f"the release in {folder} cannot be deployed"
    mend = "assemble it with `make up VERSION=…`, or point release:folder at one that is"
    if not folder.is_dir():
        raise ManifestError(title, [f"{folder}: no such folder; {mend}"])
    try:
        raw = _read(folder, MANIFEST_NAME, MANIFEST_LIMIT)
        text = raw.decode("utf-8")
    except (_FileError, UnicodeDecodeError) as error:
        raise ManifestError(title, [f"{MANIFEST_NAME}: {error}; {mend}"]) from error
    manifest = parse(text, source=f"{folder / MANIFEST_NAME}")

    problems: list[str] = []
    flags = ""
    try:
        content = _read(folder, manifest.flags.file, FLAGS_LIMIT)
        problems += _compare(f"{manifest.flags.file}: flags.sha256", manifest.flags.sha256, _hash(content))
        flags = content.decode("utf-8")
        if not isinstance(json.loads(flags), dict):
            problems.append(f"{manifest.flags.file}: flags.file: must hold a JSON object in flagd's format")
    except (_FileError, ValueError, RecursionError) as error:
        problems.append(f"{manifest.flags.file}: flags.file: {error}")
    for index, item in enumerate(manifest.evidence):
        try:
            actual = _hash_file(_inside(folder, item.file))
            problems += _compare(f"{item.file}: evidence[{index}].sha256", item.sha256, actual)
        except _FileError as error:
            problems.append(f"{item.file}: evidence[{index}].file: {error}")
    if problems:
        raise ManifestError(title, problems)
    return Release(folder=folder, manifest=manifest, text=text, sha256=_hash(raw), flags=flags)


class _FileError(Exception):
    """One file of a release folder that cannot be used; the caller adds where it is named."""


def _inside(folder: Path, relative: str) -> Path:
    try:
        root = folder.resolve(strict=True)
        path = (root / relative).resolve(strict=True)
    except FileNotFoundError:
        raise _FileError("the file is missing") from None
    except (OSError, RuntimeError) as error:
        raise _FileError(f"cannot be read ({error})") from error
    if not path.is_relative_to(root):
        raise _FileError("is a link that leaves the release folder")
    if not path.is_file():
        raise _FileError("is no regular file")
    return path


def _read(folder: Path, relative: str, limit: int) -> bytes:
    path = _inside(folder, relative)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _FileError(f"cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise _FileError(f"is larger than {limit // 1024} KiB, which the cluster cannot hold in a ConfigMap")
    return content


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _FileError(f"cannot be read ({error.strerror})") from error


def _compare(where: str, named: str, actual: str) -> list[str]:
    if named == actual:
        return []
    return [f"{where}: changed after assembling (named {named[:12]}…, found {actual[:12]}…); assemble again"]


def _problem(source: str, detail: Any) -> str:
    key = ""
    for part in detail["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    texts = {
        "missing": "is missing",
        "extra_forbidden": "is no key of this format; remove it or correct its spelling",
        "bool_type": f"{detail['input']!r} must be true or false",
        "string_type": f"{detail['input']!r} must be text",
        "literal_error": f"{detail['input']!r} must be {API_VERSION}",
    }
    text = texts.get(detail["type"])
    if text is None and detail["type"] == "string_pattern_mismatch":
        text = f"{detail['input']!r} must match {detail['ctx']['pattern']}"
    if text is None:
        text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{source}: {key or 'the manifest'}: {text}"
