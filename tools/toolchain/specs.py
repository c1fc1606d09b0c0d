"""Which binaries the project builds from which Go modules, as data. Building them is left to `tools.toolchain.build`.

The versions stand in the modules' own go.mod and go.sum; the flags repeat them where a binary has to know its version.
`cold` is the time of a first build on two cores with an empty build cache, the downloads included.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.paths import ROOT

PULUMI_VERSION = "3.255.0"
LANGUAGE_HOST_VERSION = "3.184.0"
PROVIDER_VERSION = "4.25.0"
KUBERNETES_VERSION = "1.34.4"

_PULUMI_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_PROVIDER_MODULE = "github.com/pulumi/pulumi-kubernetes/provider/v4"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One `go build`: the package's import path (`.` for the module's own) and the file it becomes.

    `variables` are string variables set by the linker, by their full names.
    """

    path: str
    file: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def ldflags(self) -> str:
        """The linker's flags: no symbol tables, and the variables."""
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables)])


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A file out of a dependency's module: into the sources before the build, or beside the binaries after it."""

    module: str
    file: PurePosixPath
    into_sources: bool = False


@dataclass(frozen=True, kw_only=True)
class GoBinary:
    """One Go module of this project and the executables it becomes.

    `cgo` is None where the user's setting holds; `links` are further names of the first package's binary, which
    looks at the name it was called by; `cold` is in seconds.
    """

    name: str
    title: str
    version: str
    folder: Path
    packages: tuple[Package, ...]
    cold: float
    cgo: bool | None = None
    copies: tuple[Copy, ...] = ()
    links: tuple[str, ...] = ()


def _kubernetes_variables() -> tuple[tuple[str, str], ...]:
    values = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": "1",
        "gitMinor": "34",
        "gitCommit": "unknown",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple((f"{package}.{name}", value) for package in packages for name, value in values.items())


PULUMI = GoBinary(
    name="pulumi",
    title="Pulumi's command line",
    version=PULUMI_VERSION,
    folder=ROOT / "tools/toolchain/pulumi",
    packages=(
        Package(
            path="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            file="pulumi",
            # Without it `pulumi version` is empty, and the Automation API refuses the binary.
            variables=((_PULUMI_VARIABLE, f"v{PULUMI_VERSION}"),),
        ),
    ),
    cold=225,
)

LANGUAGE_PYTHON = GoBinary(
    name="language-python",
    title="Pulumi's Python language host",
    version=LANGUAGE_HOST_VERSION,
    folder=ROOT / "tools/toolchain/language-python",
    packages=(
        Package(
            path="github.com/pulumi/pulumi/sdk/python/cmd/pulumi-language-python/v3",
            file="pulumi-language-python",
            variables=((_PULUMI_VARIABLE, f"v{LANGUAGE_HOST_VERSION}"),),
        ),
    ),
    copies=tuple(
        Copy(module="github.com/pulumi/pulumi/sdk/v3", file=PurePosixPath(file))
        for file in (
            "python/cmd/pulumi-language-python-exec",
            "python/dist/pulumi-analyzer-policy-python",
            "python/dist/pulumi-resource-pulumi-python",
        )
    ),
    cold=60,
)

KUBERNETES_PROVIDER = GoBinary(
    name="kubernetes-provider",
    title="Pulumi's Kubernetes provider",
    version=PROVIDER_VERSION,
    folder=ROOT / "tools/toolchain/kubernetes-provider",
    packages=(
        Package(
            path=".",
            file="pulumi-resource-kubernetes",
            variables=((f"{_PROVIDER_MODULE}/pkg/version.Version", PROVIDER_VERSION),),
        ),
    ),
    # main.go embeds both; upstream generates them, and they are too large to be tracked.
    copies=tuple(
        Copy(module=_PROVIDER_MODULE, file=PurePosixPath("cmd/pulumi-resource-kubernetes") / file, into_sources=True)
        for file in ("schema.json", "terraform-mapping.json")
    ),
    cold=600,
)

KUBERNETES = GoBinary(
    name="kubernetes",
    title="Kubernetes and etcd",
    version=KUBERNETES_VERSION,
    folder=ROOT / "tools/cluster/kubernetes",
    packages=(
        Package(path=".", file="hyperkube", variables=_kubernetes_variables()),
        Package(path="go.etcd.io/etcd/server/v3", file="etcd"),
    ),
    links=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    cgo=False,
    cold=330,
)

COREDNS = GoBinary(
    name="coredns",
    title="CoreDNS",
    version="1.13.1",
    folder=ROOT / "tools/cluster/coredns",
    packages=(Package(path=".", file="coredns"),),
    cgo=False,
    cold=52,
)

BINARIES: dict[str, GoBinary] = {
    binary.name: binary for binary in (PULUMI, LANGUAGE_PYTHON, KUBERNETES_PROVIDER, KUBERNETES, COREDNS)
}
