"""The keys and certificates a throw-away control plane needs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=2)


class CertificateAuthority:
    """Signs certificates and writes them as PEM files into one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write_certificate(directory / "ca.crt", certificate)

    def issue_server(self, name: str, *, dns: list[str], addresses: list[str]) -> None:
        """Write NAME.crt and NAME.key for a server reached by these names and addresses."""
        alternatives: list[x509.GeneralName] = [x509.DNSName(entry) for entry in dns]
        alternatives += [x509.IPAddress(ipaddress.ip_address(entry)) for entry in addresses]
        self._issue(
            name,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            x509.SubjectAlternativeName(alternatives),
            ExtendedKeyUsageOID.SERVER_AUTH,
        )

    def issue_client(self, name: str, *, user: str, group: str | None = None) -> None:
        """Write NAME.crt and NAME.key for a client: Kubernetes reads user and group from the subject."""
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group is not None:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        self._issue(name, x509.Name(subject), None, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self,
        name: str,
        subject: x509.Name,
        alternatives: x509.SubjectAlternativeName | None,
        usage: x509.ObjectIdentifier,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._name, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        _write_certificate(self.directory / f"{name}.crt", builder.sign(self._key, hashes.SHA256()))
        _write_key(self.directory / f"{name}.key", key)


def write_signing_key_pair(directory: Path, name: str) -> None:
    """Write NAME.key and NAME.pub, as service account tokens are signed and checked with."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(directory / f"{name}.key", key)
    (directory / f"{name}.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
