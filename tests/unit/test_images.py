"""What goes into an image and when it is built again, where it is pushed to, and the database image's start."""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools import images
from tools.errors import ToolError
from tools.images import docker, embedded, provide, registry, sandbox, sources, wheels
from tools.images.recipe import Recipe
from tools.images.registry import Destination, destination
from tools.paths import ROOT
from tools.progress import Phase

DIGEST = "sha256:" + "d" * 64
ENTRYPOINT = ROOT / "tools" / "postgres" / "entrypoint.sh"
DOCKERFILES = {name: ROOT / name / "Dockerfile" for name in ("steps", "forecast", "tools/postgres")}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "package").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "package" / "main.py").write_text("print(1)\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def recipe(context: Path) -> Recipe:
    return Recipe(name="thing", context=context)


class TestRecipe:
    def test_its_hash_follows_every_content_and_execute_bit(self, context: Path) -> None:
        seen = {recipe(context).digest()}
        (context / "package" / "main.py").write_text("print(2)\n")
        seen.add(recipe(context).digest())
        (context / "package" / "main.py").chmod(0o755)
        seen.add(recipe(context).digest())
        (context / "package" / "main.py").rename(context / "package" / "other.py")
        seen.add(recipe(context).digest())
        seen.add(Recipe(name="thing", context=context, labels={"version": "1"}).digest())
        seen.add(recipe(context).digest("another base"))
        assert len(seen) == 6

    def test_its_hash_ignores_times_and_compiled_python(self, context: Path) -> None:
        before = recipe(context).digest()
        os.utime(context / "run.sh", (1, 1))
        (context / "package" / "__pycache__").mkdir()
        (context / "package" / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
        assert recipe(context).digest() == before

    def test_its_copy_has_the_same_modes_whatever_the_umask_was(self, context: Path, tmp_path: Path) -> None:
        (context / "package" / "main.py").chmod(0o600)
        (context / "package" / "__pycache__").mkdir()
        (context / "package" / "__pycache__" / "x.pyc").write_bytes(b"x")
        before = os.umask(0o077)
        try:
            recipe(context).copy_to(tmp_path / "copy")
        finally:
            os.umask(before)
        modes = {
            path.relative_to(tmp_path / "copy").as_posix(): stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "copy").rglob("*")
        }
        assert modes == {"Dockerfile": 0o644, "package": 0o755, "package/main.py": 0o644, "run.sh": 0o755}

    def test_a_folder_without_a_dockerfile_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ToolError, match=r"holds no Dockerfile, so the image thing cannot be built"):
            recipe(tmp_path)


class TestDockerfiles:
    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_they_start_from_the_public_slim_image_unless_told_otherwise(self, name: str) -> None:
        lines = DOCKERFILES[name].read_text().splitlines()
        assert "ARG BASE=debian:12-slim" in lines
        parents = [line.split()[1] for line in lines if line.startswith("FROM ")]
        assert set(parents) <= {"${BASE}", "scratch"}
        assert parents[-1] == "${BASE}"

    @pytest.mark.parametrize("name", DOCKERFILES)
    def test_they_end_as_a_user_without_privileges(self, name: str) -> None:
        users = [line for line in DOCKERFILES[name].read_text().splitlines() if line.startswith("USER ")]
        assert users == ["USER 999:999" if name == "tools/postgres" else "USER 10001:10001"]

    def test_steps_and_platform_share_the_layer_of_python(self) -> None:
        def until_the_packages(name: str) -> str:
            text = DOCKERFILES[name].read_text()
            return text[text.index("\nARG BASE") : text.index("\nCOPY requirements.txt")]

        assert until_the_packages("steps") == until_the_packages("forecast")


TARGETS = """\
Origin: Debian
Codename: bookworm-security
Release: bookworm-security
Repo-URI: http://mirror.example/debian-security/
Component: main
Target-Of: deb

Origin: Debian
Codename: bookworm
Release: bookworm
Repo-URI: http://mirror.example/debian/
Component: contrib
Target-Of: deb

Origin: Debian
Codename: bookworm
Release: bookworm
Repo-URI: http://mirror.example/debian/
Component: main
Target-Of: deb

Origin: Debian
Codename: bookworm
Release: bookworm
Repo-URI: http://mirror.example/debian/
Component: main
Target-Of: deb-src

Origin: Debian
Codename: trixie
Release: trixie
Repo-URI: http://mirror.example/debian/
Component: main
Target-Of: deb

Origin: . nodistro
Codename: nodistro
Release: bookworm
Repo-URI: https://vendor.example/
Component: main
Target-Of: deb
"""


class TestSources:
    def test_only_this_debian_s_archive_is_taken(self) -> None:
        keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        assert sources.list_lines(TARGETS) == [
            f"deb {keyring} http://mirror.example/debian/ bookworm main",
            f"deb {keyring} http://mirror.example/debian-security/ bookworm-security main",
        ]

    def test_of_the_machine_s_settings_those_of_downloads_are_taken(self) -> None:
        dump = (
            'Acquire::Check-Valid-Until "false";\nAcquire::http::Proxy "http://proxy.example:3128/";\n'
            'Acquire::https "";\nAcquire::Languages:: "none";\nDPkg::Post-Invoke:: "true";\nAcquire::Retries "3";\n'
        )
        assert sources.setting_lines(dump) == [
            'Acquire::Check-Valid-Until "false";',
            'Acquire::http::Proxy "http://proxy.example:3128/";',
            'Acquire::Retries "3";',
        ]

    def test_a_machine_without_this_debian_is_told_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sources, "_output", lambda *_: TARGETS.replace("bookworm", "noble"))
        with pytest.raises(ToolError, match=r"knows no source of Debian 12 \(bookworm\).*set RELEASE_REGISTRY"):
            sources.write(tmp_path)


class TestWheels:
    def test_pip_is_asked_for_the_image_s_python_and_libraries_by_hash(self, tmp_path: Path) -> None:
        command = wheels.command(tmp_path / "requirements.txt", tmp_path / "wheels")
        assert "--require-hashes" in command
        assert "--only-binary=:all:" in command
        assert command[command.index("--python-version") + 1] == "3.11"
        platforms = [value for name, value in pairwise(command) if name == "--platform"]
        machine = os.uname().machine
        assert {f"manylinux_2_36_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"} <= set(platforms)
        assert not [name for name in platforms if "_2_37_" in name]

    def test_what_pip_refuses_is_told_and_leaves_no_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wheels, "IMAGES", tmp_path / "images")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(f"nothing-has-this-name==1.0 --hash=sha256:{'0' * 64}\n")
        with pytest.raises(
            ToolError, match=r"(?s)cannot download the wheels.*nothing-has-this-name==1\.0.*pip config list"
        ):
            wheels.ensure(requirements, "thing")
        assert list((tmp_path / "images" / "wheels").iterdir()) == []


class TestSandbox:
    def test_without_root_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ToolError, match=r"needs root: run the same command with sudo\..*RELEASE_REGISTRY"):
            sandbox.run(["buildah", "images"], log="test")

    def test_a_failure_shows_the_reason_and_where_the_rest_is(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sandbox, "LOGS", tmp_path)
        program = tmp_path / "buildah"
        program.write_text(
            "#!/bin/sh\necho no space left\nfor i in 1 2 3 4 5 6 7 8 9; do echo Copying blob $i; done\nexit 3\n"
        )
        program.chmod(0o755)
        with pytest.raises(ToolError) as failure:
            sandbox.stream([str(program)], log="one", environment={}, line=sandbox.silent)
        log = tmp_path / "one.log"
        assert str(failure.value) == (
            f"buildah failed with exit code 3; its last lines:\nno space left\nAll of its output is in {log}."
        )
        assert log.read_text().count("Copying blob") == 9


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[tuple[Destination, set[str]]]:
    """A registry with a certificate of its own, holding the digests in the set."""
    held: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            name, _, digest = self.path.removeprefix("/v2/").partition("/manifests/")
            accepted = "application/vnd.oci.image.manifest.v1+json" in self.headers.get("Accept", "")
            self.send_response(200 if name == "thing" and digest in held and accepted else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The test's own output is enough."""

    authority = tmp_path / "registry.pem"
    _write_certificate(authority)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(authority)
    server.socket = trust.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    push_name = f"127.0.0.1:{server.server_port}/thing"
    yield Destination(repository="registry.embedded:5000/thing", push_name=push_name, authority=authority), held
    server.shutdown()
    thread.join()
    server.server_close()


def _write_certificate(file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    no_password = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


class TestDestination:
    def test_a_registry_of_the_user_s_own_wins(self) -> None:
        place = destination("steps", environment={"RELEASE_REGISTRY": "registry.example.com/team/"})
        assert place.reference(DIGEST) == f"registry.example.com/team/steps@{DIGEST}"
        assert place.push_name == "registry.example.com/team/steps"
        assert not place.embedded
        assert place.client_options() == []

    def test_a_registry_on_this_machine_needs_no_certificate(self) -> None:
        place = destination("steps", environment={"RELEASE_REGISTRY": "localhost:5001"})
        assert place.client_options() == ["--tls-verify=false"]

    @pytest.mark.parametrize("text", ["https://registry.example.com", "Registry.example.com", "a b", "x@y"])
    def test_a_registry_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ToolError, match=r"is no registry; write host and path in lower case and without a scheme"):
            destination("steps", environment={"RELEASE_REGISTRY": text})

    def test_the_embedded_registry_is_asked_for_the_manifest(self, answers: tuple[Destination, set[str]]) -> None:
        place, held = answers
        assert not place.holds(DIGEST)
        held.add(DIGEST)
        assert place.holds(DIGEST)

    def test_a_registry_with_another_certificate_is_not_believed(
        self, answers: tuple[Destination, set[str]], tmp_path: Path
    ) -> None:
        other = tmp_path / "other.pem"
        _write_certificate(other)
        place = Destination(repository="r/thing", push_name=answers[0].push_name, authority=other)
        with pytest.raises(ToolError, match=r"does not answer \(.*certificate.*start the cluster with"):
            place.holds(DIGEST)


class Builder:
    """Stands in for the builder without Docker: what it is asked for, and a digest for each build."""

    def __init__(self, held: set[str]) -> None:
        self.held = held
        self.builds: list[str] = []
        self.base = "base one"

    def identity(self) -> str:
        return self.base

    def build(self, recipe: Recipe, _current: Phase) -> str:
        self.builds.append(recipe.name)
        return f"id-{len(self.builds)}"

    def push(self, _image: str, _place: Destination, _tag: str, _current: Phase) -> str:
        self.held.add(DIGEST)
        return DIGEST


@pytest.fixture
def builder(answers: tuple[Destination, set[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Builder:
    place, held = answers
    stand_in = Builder(held)
    monkeypatch.setattr(provide, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(provide, "destination", lambda _name: place)
    for name in ("identity", "build", "push"):
        monkeypatch.setattr(embedded, name, getattr(stand_in, name))
    return stand_in


class TestEnsure:
    def test_what_was_pushed_before_is_not_built_again(self, builder: Builder, context: Path) -> None:
        expected = f"registry.embedded:5000/thing@{DIGEST}"
        assert [provide.ensure(recipe(context)) for _ in range(2)] == [expected, expected]
        assert builder.builds == ["thing"]

    def test_a_changed_file_or_base_builds_again(self, builder: Builder, context: Path) -> None:
        provide.ensure(recipe(context))
        (context / "run.sh").write_text("#!/bin/sh\nexit 0\n")
        provide.ensure(recipe(context))
        builder.base = "base two"
        provide.ensure(recipe(context))
        assert len(builder.builds) == 3

    def test_what_the_registry_has_lost_is_pushed_again(self, builder: Builder, context: Path) -> None:
        provide.ensure(recipe(context))
        builder.held.clear()
        provide.ensure(recipe(context))
        assert len(builder.builds) == 2

    def test_a_registry_that_refuses_is_named_with_a_way_out(
        self, builder: Builder, context: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: object) -> str:
            raise ToolError("denied: requested access")

        monkeypatch.setattr(embedded, "push", refuse)
        with pytest.raises(ToolError, match=r"The image thing cannot be pushed to .*cluster status`\. denied"):
            provide.ensure(recipe(context))
        assert builder.builds == ["thing"]

    def test_the_platform_s_version_and_commit_are_labels(
        self, builder: Builder, context: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Recipe] = []

        def build(recipe: Recipe, _current: Phase) -> str:
            seen.append(recipe)
            return "id"

        monkeypatch.setattr(embedded, "build", build)
        images.build_forecast(context, "1.1.0", "c" * 40)
        assert seen[0].labels == {
            "org.opencontainers.image.version": "1.1.0",
            "org.opencontainers.image.revision": "c" * 40,
        }


DOCKER = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1" in
push) echo "The push refers to repository"; echo "${2##*:}: digest: sha256:%s size: 1234" ;;
manifest) exit "$KNOWN" ;;
version) exit "$ENGINE" ;;
esac
""" % ("e" * 64)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Docker client that notes what it is asked, with an engine that answers; gives the notes' file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("ENGINE", "0")
    monkeypatch.setenv("KNOWN", "0")
    monkeypatch.setenv(registry.VARIABLE, "registry.example.com/team")
    monkeypatch.setattr(provide, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(sandbox, "LOGS", tmp_path / "logs")
    return tmp_path / "calls"


class TestDocker:
    def test_it_builds_for_a_registry_of_the_user_s_own(self, calls: Path, context: Path) -> None:
        assert provide.ensure(recipe(context)) == f"registry.example.com/team/thing@sha256:{'e' * 64}"
        asked = [line for line in calls.read_text().splitlines() if not line.startswith("version")]
        assert asked[0].startswith("build --progress plain --tag thing:")
        assert asked[0].endswith(str(context))
        assert asked[2].startswith("push registry.example.com/team/thing:")

    def test_what_the_registry_still_has_is_not_built_again(self, calls: Path, context: Path) -> None:
        provide.ensure(recipe(context))
        provide.ensure(recipe(context))
        assert sum(line.startswith("build ") for line in calls.read_text().splitlines()) == 1

    def test_what_the_registry_has_lost_is_built_again(
        self, calls: Path, context: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provide.ensure(recipe(context))
        monkeypatch.setenv("KNOWN", "1")
        provide.ensure(recipe(context))
        assert sum(line.startswith("build ") for line in calls.read_text().splitlines()) == 2

    def test_a_client_without_an_engine_does_not_count(self, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert docker.answers()
        monkeypatch.setenv("ENGINE", "1")
        assert not docker.answers()


INITDB = """#!/bin/sh
echo "initdb $*" >> "$CALLS"
for argument in "$@"; do
    case "$argument" in
    --pgdata=*) data="${argument#--pgdata=}" ;;
    --pwfile=*) password=$(cat "${argument#--pwfile=}") ;;
    esac
done
mkdir -p "$data/base"
echo 15 > "$data/PG_VERSION"
echo "$password" > "$data/password"
: > "$data/pg_hba.conf"
[ -z "${KILLED:-}" ] || kill -9 $PPID
"""
POSTGRES = """#!/bin/sh
echo "postgres $*" >> "$CALLS"
case "$1" in --single) cat >> "$CALLS" ;; esac
"""


class Start:
    """The database image's entrypoint with stand-ins for PostgreSQL's programs, which note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.calls = folder / "calls"
        self.secret = folder / "secret"
        self.secret.write_text("s3cret\n")
        programs = folder / "bin"
        programs.mkdir()
        for name, text in (("initdb", INITDB), ("postgres", POSTGRES)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.variables = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "PGDATA": str(self.data),
            "CALLS": str(self.calls),
            "POSTGRES_USER": "forecast",
            "POSTGRES_DB": "demand",
            "POSTGRES_PASSWORD_FILE": str(self.secret),
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in {**self.variables, **variables}.items() if value}
        self.calls.write_text("")
        return subprocess.run(
            ["sh", str(ENTRYPOINT), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return Start(tmp_path)


class TestEntrypoint:
    def test_an_empty_folder_becomes_a_cluster_with_checksums_and_passwords(self, start: Start) -> None:
        assert start.run("postgres", "-c", "max_connections=50").returncode == 0
        called = start.called()
        assert called[0].startswith("initdb ")
        assert {"--data-checksums", "--auth-host=scram-sha-256", "--username=forecast"} <= set(called[0].split())
        assert called[1:] == [
            f"postgres --single -D {start.data}/.initializing/data postgres",
            'CREATE DATABASE "demand"',
            "postgres -c max_connections=50",
        ]
        assert (start.data / "password").read_text() == "s3cret\n"
        assert (start.data / "pg_hba.conf").read_text() == "host all all all scram-sha-256\n"
        assert sorted(path.name for path in start.data.iterdir()) == ["PG_VERSION", "base", "password", "pg_hba.conf"]

    def test_a_cluster_that_is_there_is_only_started(self, start: Start) -> None:
        start.run()
        start.secret.unlink()
        assert start.run("-c", "fsync=on").returncode == 0
        assert start.called() == ["postgres -c fsync=on"]

    def test_one_killed_while_it_was_made_is_made_anew(self, start: Start) -> None:
        assert start.run(KILLED="1").returncode == -9
        assert not (start.data / "PG_VERSION").exists()
        assert start.run().returncode == 0
        assert start.called()[0].startswith("initdb ")
        assert (start.data / "PG_VERSION").read_text() == "15\n"

    def test_one_killed_while_it_was_moved_is_moved_on(self, start: Start) -> None:
        unfinished = start.data / ".initializing"
        (unfinished / "data" / "base").mkdir(parents=True)
        (unfinished / "data" / "PG_VERSION").write_text("15\n")
        (unfinished / "whole").touch()
        (start.data / "global").mkdir()
        assert start.run().returncode == 0
        assert start.called() == ["postgres "]
        assert sorted(path.name for path in start.data.iterdir()) == ["PG_VERSION", "base", "global"]

    def test_a_password_in_a_variable_serves_and_does_not_reach_the_server(self, start: Start) -> None:
        assert start.run(POSTGRES_PASSWORD_FILE="", POSTGRES_PASSWORD="pa$$ 'w").returncode == 0
        assert (start.data / "password").read_text() == "pa$$ 'w\n"
        shown = start.run("env", POSTGRES_PASSWORD_FILE="", POSTGRES_PASSWORD="pa$$ 'w")
        assert "PGDATA=" in shown.stdout
        server = start.data.parent / "bin" / "postgres"
        server.write_text("#!/bin/sh\nenv\n")
        assert "POSTGRES_PASSWORD" not in start.run(POSTGRES_PASSWORD_FILE="", POSTGRES_PASSWORD="x").stdout

    def test_quotes_in_a_database_s_name_stay_in_its_name(self, start: Start) -> None:
        start.run(POSTGRES_DB='a"; DROP')
        assert 'CREATE DATABASE "a""; DROP"' in start.called()

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"POSTGRES_PASSWORD_FILE": ""}, "is empty and no password is given: set POSTGRES_PASSWORD_FILE"),
            ({"POSTGRES_PASSWORD": "x"}, "both POSTGRES_PASSWORD_FILE and POSTGRES_PASSWORD are set: remove one"),
            (
                {"POSTGRES_PASSWORD_FILE": "/nowhere"},
                "POSTGRES_PASSWORD_FILE /nowhere is empty or cannot be read by uid",
            ),
        ],
    )
    def test_a_wrong_password_setting_is_told(self, start: Start, variables: dict[str, str], message: str) -> None:
        done = start.run(**variables)
        assert done.returncode == 1
        assert message in done.stderr
        assert start.called() == []

    def test_a_folder_with_other_files_is_left_alone(self, start: Start) -> None:
        start.data.mkdir()
        (start.data / "holiday.jpg").write_text("x")
        (start.data / "lost+found").mkdir()
        done = start.run()
        assert done.returncode == 1
        assert f"{start.data} holds no database cluster, but {start.data}/holiday.jpg" in done.stderr
        assert start.called() == []
