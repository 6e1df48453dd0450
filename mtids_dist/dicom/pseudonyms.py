"""Names of patients, series and nodes that lead back to nobody without the key: keyed hashes (HMAC-SHA-256, RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from mtids_dist.errors import InputError

KEY_BYTES = 32
HEX_DIGITS = 16
"""64 bits: among a million names two are alike with a probability of 3e-8."""


@dataclass(frozen=True)
class Pseudonyms:
    """The same name gets the same pseudonym under the same key; kinds do not mix (patient "1" is not node "1")."""

    key: bytes = field(repr=False)
    """At least 16 secret bytes. Whoever has it can test guesses of a name: it stays out of the store."""

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise ValueError(f"key must have at least 16 bytes, found {len(self.key)}")

    def patient(self, patient_id: str) -> str:
        """16 hex digits for a patient."""
        return self._hash("patient", patient_id)

    def series(self, series_uid: str) -> str:
        """16 hex digits for a series."""
        return self._hash("series", series_uid)

    def node(self, series_uid: str, node_id: str) -> str:
        """16 hex digits for a node; node ids need to be unique within a series only."""
        return self._hash("node", series_uid, node_id)

    def _hash(self, *parts: str) -> str:
        # Each part with its length: ("a", "bc") and ("ab", "c") must differ.
        message = b"".join(len(data).to_bytes(8, "big") + data for data in (part.encode() for part in parts))
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:HEX_DIGITS]


def read_or_make_key(path: Path) -> bytes:
    """The key in the file `path` (hex), which is made with a random key, readable by its owner only, if it is not there.

    Raises `InputError` for a file that holds no such key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (ValueError, OSError) as error:
        raise InputError("holds no key", where=str(path), allowed=f"{2 * KEY_BYTES} hex digits") from error
    if len(key) != KEY_BYTES:
        raise InputError("holds no key", where=str(path), found=f"{len(key)} bytes", allowed=f"{2 * KEY_BYTES} hex digits")
    return key
