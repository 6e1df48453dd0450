"""Keyed hashes: stable under a key, unlinkable without it."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from mtids_dist.dicom import Pseudonyms, read_or_make_key
from mtids_dist.errors import InputError

NAMES = Pseudonyms(key=bytes(range(32)))


def test_same_key_same_names_other_key_other_names() -> None:
    assert NAMES.patient("P1") == Pseudonyms(key=bytes(range(32))).patient("P1")
    assert NAMES.patient("P1") != Pseudonyms(key=bytes(32)).patient("P1")
    assert len(NAMES.patient("P1")) == 16
    assert "P1" not in repr(NAMES)
    assert "\\x01" not in repr(NAMES)


def test_it_is_an_hmac_and_not_a_plain_hash() -> None:
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (b"patient", b"P1"))
    assert NAMES.patient("P1") == hmac.new(bytes(range(32)), message, hashlib.sha256).hexdigest()[:16]
    assert NAMES.patient("P1") != hashlib.sha256(b"P1").hexdigest()[:16]


def test_kinds_and_borders_of_parts_do_not_mix() -> None:
    names = [NAMES.patient("1"), NAMES.series("1"), NAMES.node("1", "1"), NAMES.node("11", ""), NAMES.node("", "11")]
    names += [NAMES.node("1.2", "34"), NAMES.node("1.23", "4"), NAMES.patient("é")]
    assert len(set(names)) == len(names)


def test_key_file_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = read_or_make_key(path)
    assert len(key) == 32
    assert read_or_make_key(path) == key
    assert read_or_make_key(tmp_path / "other") != key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "not hex", "00ff"])
def test_a_file_without_a_key_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(InputError, match="holds no key"):
        read_or_make_key(tmp_path / "key")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Pseudonyms(key=b"short")
