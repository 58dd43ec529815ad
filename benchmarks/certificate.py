"""The certificate of servers that speak TLS: signed by itself, made anew by a run that needs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from .errors import CannotRunError
from .processes import ROOT

_DIRECTORY = ROOT / "build" / "bench" / "tls"

CERTIFICATE: Final = _DIRECTORY / "certificate.pem"
"""The file of the certificate."""
KEY: Final = _DIRECTORY / "key.pem"
"""The file of its key, in PKCS #8, which granian wants."""


def make_certificate(certificate: Path = CERTIFICATE, key: Path = KEY) -> None:
    """Write a certificate for 127.0.0.1, which holds for a week, and its key: ECDSA on P-256.

    Raises `CannotRunError` where there is no openssl, or it fails.
    """
    for file in (certificate, key):
        file.parent.mkdir(parents=True, exist_ok=True)
    argv = [
        *("openssl", "req", "-x509", "-nodes", "-days", "7", "-subj", "/CN=127.0.0.1"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    try:
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotRunError(
            "openssl is not installed (Debian, Ubuntu: apt-get install openssl)"
        ) from None
    if made.returncode != 0:
        raise CannotRunError(f"openssl: {made.stderr.strip().splitlines()[-1]}")
