"""The instance's certificate authority, the certificates under it and the kubeconfigs: elliptic curve P-256 throughout.

`ensure(instance)` makes what is missing, what is near its end, and what was made for another node address; the
authority itself and the key of the service accounts stay, so what clients know and tokens in pods go on. Who reads the
files is left to the components.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tools.cluster.instance import API_PORT, API_SERVICE_ADDRESS, NODE_NAME, REGISTRY_HOST, Instance
from tools.errors import ToolError

_AUTHORITY_DAYS = 3650
_DAYS = 825
_RENEW_DAYS = 60


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a certificate names; `hosts` are DNS names and addresses that it may serve."""

    name: str
    common_name: str
    organization: str | None = None
    hosts: tuple[str, ...] = ()
    kubeconfig: bool = field(default=False)


def identities(instance: Instance) -> tuple[Identity, ...]:
    """Everybody in the cluster who needs a certificate."""
    node = str(instance.node_address)
    service = "kubernetes.default.svc"
    return (
        Identity(
            name="apiserver",
            common_name="kube-apiserver",
            hosts=(
                *(node, "127.0.0.1", API_SERVICE_ADDRESS, "localhost"),
                *("kubernetes", "kubernetes.default", service, f"{service}.cluster.local"),
            ),
        ),
        Identity(name="apiserver-kubelet", common_name="kube-apiserver-kubelet-client", organization="system:masters"),
        Identity(name="admin", common_name="admin", organization="system:masters", kubeconfig=True),
        Identity(name="controller-manager", common_name="system:kube-controller-manager", kubeconfig=True),
        Identity(name="scheduler", common_name="system:kube-scheduler", kubeconfig=True),
        Identity(name="proxy", common_name="system:kube-proxy", kubeconfig=True),
        Identity(
            name="kubelet",
            common_name=f"system:node:{NODE_NAME}",
            organization="system:nodes",
            hosts=(node, NODE_NAME),
            kubeconfig=True,
        ),
        Identity(name="registry", common_name="registry", hosts=(node, "127.0.0.1", REGISTRY_HOST.partition(":")[0])),
    )


def ensure(instance: Instance) -> None:
    """Make the missing, the ageing and the wrongly addressed certificates and the kubeconfigs of an instance."""
    instance.pki.mkdir(parents=True, exist_ok=True)
    instance.pki.chmod(0o700)
    authority_key, authority = _authority(instance.pki)
    _service_account_key(instance.pki)
    for identity in identities(instance):
        certificate = instance.pki / f"{identity.name}.crt"
        if not _good(certificate, identity, authority):
            _issue(instance.pki, identity, authority_key, authority)
        if identity.kubeconfig:
            write_private(instance.pki / f"{identity.name}.kubeconfig", kubeconfig(instance, identity.name))
    write_private(instance.kubeconfig, kubeconfig(instance, "admin"), owner=invoker())
    write_private(instance.registry_ca, authority.public_bytes(serialization.Encoding.PEM), owner=invoker(), mode=0o644)


def kubeconfig(instance: Instance, name: str) -> bytes:
    """A kubeconfig with everything inside, for an identity whose certificate exists."""

    def content(file: str) -> str:
        return base64.b64encode((instance.pki / file).read_bytes()).decode()

    context = instance.context
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": f"{context}-{name}"}}],
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": f"https://{instance.node_address}:{API_PORT}",
                    "certificate-authority-data": content("ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": f"{context}-{name}",
                "user": {
                    "client-certificate-data": content(f"{name}.crt"),
                    "client-key-data": content(f"{name}.key"),
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def invoker() -> tuple[int, int] | None:
    """User and group of the person behind sudo, who must be able to read what root wrote for them."""
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        return int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    return None


def write_private(path: Path, content: bytes, *, owner: tuple[int, int] | None = None, mode: int = 0o600) -> None:
    """Replace a file in one step; nobody but its owner can read it at any time unless `mode` says so."""
    if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode and owner is None:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
    beside.rename(path)


def _authority(pki: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_file, file = pki / "ca.key", pki / "ca.crt"
    if key_file.is_file() and file.is_file():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ToolError(f"{key_file} is not a key of this tool: `python -m tools.cluster clean` makes a new one.")
        return key, x509.load_pem_x509_certificate(file.read_bytes())
    new = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "embedded cluster")])
    certificate = (
        _builder(_AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(new.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(new.public_key()), critical=False)
        .sign(new, hashes.SHA256())
    )
    write_private(key_file, _pem(new))
    write_private(file, certificate.public_bytes(serialization.Encoding.PEM))
    return new, certificate


def _issue(
    pki: Path, identity: Identity, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organization))
    builder = (
        _builder(_DAYS)
        .subject_name(x509.Name(attributes))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if identity.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in identity.hosts]), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    write_private(pki / f"{identity.name}.key", _pem(key))
    write_private(pki / f"{identity.name}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _good(file: Path, identity: Identity, authority: x509.Certificate) -> bool:
    if not file.is_file() or not file.with_suffix(".key").is_file():
        return False
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    if certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) < dt.timedelta(days=_RENEW_DAYS):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
        names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = set()
    except (ValueError, InvalidSignature):
        return False
    return names == {_host(host) for host in identity.hosts}


def _service_account_key(pki: Path) -> None:
    if not (pki / "sa.key").is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(pki / "sa.pub", public)
        write_private(pki / "sa.key", _pem(key))


def _builder(days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    # an hour back: the clocks of a machine that just woke up and of its peers may differ
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
