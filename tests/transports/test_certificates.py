"""What a certificate says, and what is said of files that cannot be used: one line for each."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bide.errors import SettingError
from bide.settings import Settings
from bide.transports.certificates import Pair
from bide.transports.contexts import Contexts
from tests.failures import Failures, same
from tests.served import Log
from tests.tls import Certificates, certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    """Return certificates of this test's own."""
    return Certificates(tmp_path)


def test_a_certificate_says_whom_it_is_for_and_until_when(made: Certificates) -> None:
    """As OpenSSL reads it, with names in lower case; SNI has names, and no addresses."""
    day = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
    path = made.issue("one", "One.Example", "*.one.example", "192.0.2.1", not_after=day)
    pair = Pair(path)
    assert pair.names == ("one.example", "*.one.example")
    assert pair.ends == day
    assert pair.describe() == f"one.example, *.one.example until {day:%Y-%m-%d}"


def test_a_file_that_cannot_be_used_is_named_with_the_reason(made: Certificates) -> None:
    """And with what to do, where there is something."""
    here = made.directory
    other = made.issue("other", "other.example")
    pem = Path(made.server).read_bytes()
    crt = str(Path(made.server).with_suffix(".crt"))
    key = str(Path(made.server).with_suffix(".key"))

    def file(name: str, data: bytes) -> str:
        path = here / name
        path.write_bytes(data)
        return str(path)

    der = ssl.PEM_cert_to_DER_cert(Path(crt).read_text())
    locked = made.encrypt(made.server, b"open sesame")
    wrong = file("wrong.txt", b"sesame\n")
    chain = Path(crt).read_bytes() + Path(made.authority).read_bytes()
    backwards = Path(made.authority).read_bytes() + Path(crt).read_bytes()
    assert Pair(file("chain.crt", chain), key).names
    absent = str(here / "absent.pem")
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "absent": (
            {"certificate": absent},
            f"the certificate {absent} cannot be read: No such file",
        ),
        "directory": ({"certificate": str(here)}, "cannot be read: Is a directory"),
        "no pem": (
            {"certificate": file("a", b"hello")},
            "has no certificate in it: it must be PEM",
        ),
        "der": ({"certificate": file("b", der)}, "is DER, and not PEM: openssl x509 -inform der"),
        "damaged": (
            {
                "certificate": file(
                    "c",
                    pem.replace(
                        b"-----BEGIN CERTIFICATE-----\nM", b"-----BEGIN CERTIFICATE-----\n!x"
                    ),
                )
            },
            "is damaged: ",
        ),
        "no certificate": (
            {
                "certificate": file(
                    "d", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
                )
            },
            "is damaged: it is not a certificate",
        ),
        "order": ({"certificate": file("e", backwards), "key": key}, "are not in order"),
        "no key": (
            {"certificate": crt},
            "has no private key in it, in PEM; name the key's file by --key",
        ),
        "key absent": ({"certificate": crt, "key": absent}, f"the key {absent} cannot be read"),
        "key is none": ({"certificate": crt, "key": wrong}, "has no private key in it, in PEM"),
        "another's": (
            {"certificate": crt, "key": other},
            f"{other} is not the key of the certificate {crt}",
        ),
        "locked": (
            {"certificate": crt, "key": locked},
            "is encrypted: name a file with its password by",
        ),
        "wrong password": (
            {"certificate": crt, "key": locked, "key_password_file": wrong},
            f"the password in {wrong} does not open the key {locked}",
        ),
        "no password": (
            {"certificate": crt, "key": locked, "key_password_file": absent},
            f"the password of the key, in {absent} cannot be read",
        ),
        "no ca": ({"certificate": made.server, "client_ca": absent}, "of --client-ca"),
        "ca is none": (
            {"certificate": made.server, "client_ca": wrong},
            "has no certificate in it",
        ),
        "keys": ({"certificate": [crt, crt], "key": key}, "key has 1 files, and certificate 2"),
        "alone": ({"client_ca": made.authority}, "client_ca is given without a certificate"),
    }
    with Failures() as failures:
        for name, (options, said) in cases.items():
            with failures.of(name):
                with pytest.raises(SettingError) as raised:
                    Contexts(Settings(**options))
                assert said in str(raised.value)
                assert "\n" not in str(raised.value)


def test_an_encrypted_key_is_opened_with_the_password_of_a_file(made: Certificates) -> None:
    """An editor may have left a line's end behind the password."""
    crt = str(Path(made.server).with_suffix(".crt"))
    locked = made.encrypt(made.server, b"open sesame")
    password = made.directory / "password"
    password.write_bytes(b"open sesame\n")
    settings = Settings(certificate=(crt,), key=(locked,), key_password_file=str(password))
    assert Contexts(settings).describe()


def test_an_expired_certificate_is_used_and_named(made: Certificates, log: Log) -> None:
    """A server that does not start would be worse."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    path = made.issue("old", "old.example", not_after=yesterday)
    contexts = Contexts(Settings(certificate=(path,)))
    contexts.warn()
    assert f"{path} has expired on {yesterday:%Y-%m-%d}" in log.take("has expired").getMessage()
    Contexts(Settings(certificate=(made.server,))).warn()


def test_contexts_are_renewed_when_their_files_have_changed_and_then_rest(
    made: Certificates, log: Log
) -> None:
    """Who replaces a certificate and its key replaces one after the other."""
    crt, key = (str(Path(made.server).with_suffix(each)) for each in (".crt", ".key"))
    contexts = Contexts(Settings(certificate=(crt,), key=(key,)))
    first = contexts.current
    assert not contexts.look()
    other = Path(made.issue("other", "other.example"))
    Path(crt).write_bytes(other.with_suffix(".crt").read_bytes())
    assert not contexts.look()  # half of it has come
    Path(key).write_bytes(other.with_suffix(".key").read_bytes())
    assert not contexts.look()  # the rest
    assert contexts.current is first
    assert contexts.look()
    assert contexts.current is not first
    assert "other.example until" in log.take("the certificates were renewed").getMessage()
    assert not contexts.look()


def test_files_that_do_not_fit_are_named_once_and_what_is_in_use_stays(
    made: Certificates, log: Log
) -> None:
    """Until they change again, or somebody asks."""
    crt, key = (str(Path(made.server).with_suffix(each)) for each in (".crt", ".key"))
    contexts = Contexts(Settings(certificate=(crt,), key=(key,)))
    first = contexts.current
    good = Path(key).read_bytes()
    for number, bad in enumerate((b"nonsense", made.issue("other", "other.example"), None)):
        if bad is None:
            Path(key).unlink()
        else:
            Path(key).write_bytes(bad if isinstance(bad, bytes) else Path(bad).read_bytes())
        assert [contexts.look() for _ in range(3)] == [False, True, False]
        line = log.take("are not renewed, those in use stay").getMessage()
        assert key in line, number
    assert not contexts.renew()
    log.take("are not renewed, those in use stay")
    assert contexts.current is first
    Path(key).write_bytes(good)
    assert [contexts.look() for _ in range(2)] == [False, True]
    assert contexts.current is not first
    log.take("were renewed")


def test_the_contexts_are_read_for_settings_that_name_a_certificate_alone() -> None:
    """Without one the server speaks in clear."""
    assert Contexts.of(Settings()) is None
    found = Contexts.of(Settings(**certificates().settings))
    assert found is not None
    same(found.current.minimum_version, ssl.TLSVersion.TLSv1_2)
    assert found.current.options & ssl.OP_NO_RENEGOTIATION
    assert found.current.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", -1)
    assert {each["aead"] for each in found.current.get_ciphers()} == {True}
