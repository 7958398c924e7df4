"""Mutual TLS at the checker's door, with real certificates: who shows none of the right ones gets no answer."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.auth_checker.config import BadConfig, Config
from tests.end_to_end.checker_server import SCOPED
from tests.end_to_end.proxied import checker_command, free_ports, running
from tests.unit.checker_story import key_of
from tests.unit.test_checker_config import ENVIRONMENT


class Authority:
    """Issues certificates, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = self._issue(name, self._name, self._key, is_authority=True)[0]

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return self._issue(name, subject, ec.generate_private_key(ec.SECP256R1()), is_authority=False)

    def _issue(
        self, name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool
    ) -> tuple[Path, Path]:
        now = dt.datetime.now(dt.UTC)
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(here, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


class Place:
    """Two authorities, and a checker that trusts the first."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.other = Authority(folder, "ours"), Authority(folder, "other")
        cert, key = self.ours.issue("checker")
        self.environment = {
            "KEYLEDGER_TLS_CERT": str(cert),
            "KEYLEDGER_TLS_KEY": str(key),
            "KEYLEDGER_TLS_CLIENT_CA": str(self.ours.file),
        }
        self.port = free_ports(1)[0]

    def ask(self, shown: tuple[Path, Path] | None) -> bytes:
        """A validation with this certificate; raises urllib3's HTTPError."""
        context = ssl.create_default_context(cafile=str(self.ours.file))
        if shown is not None:
            context.load_cert_chain(*shown)
        with urllib3.PoolManager(ssl_context=context, retries=False, timeout=5) as http:
            url = f"https://127.0.0.1:{self.port}/v1/validations"
            return http.request("POST", url, json={"key": key_of(SCOPED)}).data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    place = Place(folder)
    with running(checker_command(place.port, folder), folder, place.port, **place.environment):
        yield place


def test_a_certificate_of_our_authority_is_a_credential(place: Place) -> None:
    assert b'"code":"VALID"' in place.ask(place.ours.issue("invoices"))


def test_without_a_certificate_of_our_authority_there_is_no_answer(place: Place) -> None:
    for shown in (None, place.other.issue("stranger")):
        with pytest.raises(urllib3.exceptions.HTTPError):
            place.ask(shown)


def test_plain_http_gets_no_answer(place: Place) -> None:
    with urllib3.PoolManager(retries=False, timeout=5) as http, pytest.raises(urllib3.exceptions.HTTPError):
        http.request("GET", f"http://127.0.0.1:{place.port}/healthz")


def test_certificates_stand_in_for_the_shared_credential_elsewhere_than_on_loopback(place: Place) -> None:
    elsewhere = {**ENVIRONMENT, "KEYLEDGER_HOST": "0.0.0.0"}
    assert Config.from_env({**elsewhere, **place.environment}).checker_token is None
    both = Config.from_env({**elsewhere, **place.environment, "CHECKER_TOKEN": "t"})
    assert both.checker_token == "t"
    without_authority = {**place.environment, "KEYLEDGER_TLS_CLIENT_CA": ""}
    with pytest.raises(BadConfig, match="set CHECKER_TOKEN"):
        Config.from_env({**elsewhere, **without_authority})


def test_files_that_are_no_certificates_are_named_at_start(place: Place) -> None:
    for name in place.environment:
        with pytest.raises(BadConfig, match="TLS files"):
            Config.from_env({**ENVIRONMENT, **place.environment, name: __file__})
