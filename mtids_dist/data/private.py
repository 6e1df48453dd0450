"""`STORE/private/`: the key of the pseudonyms and the table that leads from them back to patients. Never shared."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mtids_dist.data.manifest import PRIVATE, write_atomically
from mtids_dist.dicom import Pseudonyms, read_or_make_key
from mtids_dist.errors import InputError

_README = """This folder leads from the hashes of the store back to patients, series, nodes and files.
Share the store without it. key: the secret key of the hashes (HMAC-SHA-256). lookup.parquet: hash -> identifier.
"""


class LookupRow(NamedTuple):
    """What one hash stands for; `kind` is patient, series, node or file."""

    kind: str
    hash: str
    identifier: str


@dataclass(frozen=True)
class Private:
    """The private folder of one store, which only its owner may enter (0700, files 0600)."""

    folder: Path
    pseudonyms: Pseudonyms

    def fingerprint(self, *parts: str) -> str:
        """A keyed hash of anything: equal for equal input, and telling nothing to who lacks the key."""
        digest = hmac.new(self.pseudonyms.key, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode(errors="surrogateescape")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    def file(self, path: str) -> str:
        """16 hex digits for a file of the DICOM folder."""
        return self.fingerprint("file", path)[:16]

    def write_lookup(self, rows: Iterable[LookupRow]) -> None:
        """Write `lookup.parquet`, the columns of `LookupRow`."""
        table = pa.Table.from_pylist([row._asdict() for row in sorted(set(rows))], schema=_LOOKUP)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(self.folder / "lookup.parquet", sink.getvalue().to_pybytes(), mode=0o600)


_LOOKUP = pa.schema([(name, pa.string()) for name in LookupRow._fields])


def open_private(store: Path, key_file: Path | None) -> Private:
    """The private folder of a store, made with a random key or that of `key_file` where it is not there yet.

    Raises InputError if the store was begun with another key, or a key can't be read.
    """
    folder = store / PRIVATE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    given = read_or_make_key(key_file) if key_file else None
    key_path = folder / "key"
    if not key_path.exists():
        write_atomically(folder / "README.txt", _README.encode(), mode=0o600)
        write_atomically(key_path, ((given.hex() if given else secrets.token_hex(32)) + "\n").encode(), mode=0o600)
    key = read_or_make_key(key_path)
    if given is not None and given != key:
        raise InputError("the store was begun with another key, name another folder", where=f"key_file {key_file}")
    return Private(folder, Pseudonyms(key))
