"""Signatures of artifacts: an HMAC of the manifest, whose key the service holds.

The digests in a manifest show that a file was damaged. Whoever can write into the folder can write
them anew, so they do not show that it was forged; a signature by a key that is kept elsewhere does.
"""

import hmac
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import ArtifactError, DataError
from recsys_ms.core.files import read_regular

#: Hexadecimal HMAC-SHA256 (RFC 2104) of the bytes of ``manifest.json``.
SIGNATURE_FILE: Final = "signature"
#: The length of a SHA-256, as RFC 2104 advises.
_LEAST_KEY: Final = 32
_MOST_KEY: Final = 4096


def read_key(path: Path) -> bytes:
    """The key in a file, without white space at its ends.

    Raises
    ------
    DataError
        It cannot be read, or has fewer than 32 bytes.
    """
    key = read_regular(path, max_bytes=_MOST_KEY, follow=True).strip()
    if len(key) < _LEAST_KEY:
        raise DataError(
            f"{path}: the key has {len(key)} bytes, expected at least {_LEAST_KEY}; make one with "
            "'openssl rand -hex 32'"
        )
    return key


def signature_of(manifest: bytes, key: bytes) -> bytes:
    """Signature of the bytes of a manifest."""
    return hmac.digest(key, manifest, "sha256").hex().encode()


def check_signature(folder: Path, manifest: bytes, key: bytes) -> None:
    """Refuse an artifact whose signature is missing, or is not by this key.

    Raises
    ------
    ArtifactError
        Says which.
    """
    try:
        found = read_regular(folder / SIGNATURE_FILE, max_bytes=_MOST_KEY, raises=ArtifactError)
    except ArtifactError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise ArtifactError(
            f"{folder}: it is not signed, and a key was given; train again with the key, or ask "
            "without one"
        ) from error
    if not hmac.compare_digest(found.strip(), signature_of(manifest, key)):
        raise ArtifactError(
            f"{folder}: its signature is not by the given key; the artifact was forged, or another "
            "key is meant"
        )
