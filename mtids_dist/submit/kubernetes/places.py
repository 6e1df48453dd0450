"""Where data lie, as people write it: pvc:NAME[/SUBPATH] or s3://BUCKET/PREFIX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from mtids_dist.submit.kubernetes.names import is_dns_subdomain, is_plain_path

STORAGE = "/mnt/storage"
ARCHIVE = "/mnt/archive"
STORE = "/mnt/store"
"""Where the storage, the archive and a store on a claim of its own are mounted."""


@dataclass(frozen=True)
class PersistentVolumeClaim:
    """A claim, and a folder in it."""

    claim: str
    folder: str | None = None

    def __str__(self) -> str:
        return f"pvc:{self.claim}" + (f"/{self.folder}" if self.folder else "")


@dataclass(frozen=True)
class Bucket:
    """A prefix of an object store."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def read_claim(value: Any) -> Any:
    """The claim that a text names."""
    if isinstance(value, PersistentVolumeClaim):
        return value
    text = str(value)
    if text.startswith("s3://"):
        raise ValueError("not read from an object store: mount the bucket read-only (a CSI driver's claim) and name pvc:NAME")
    match = re.fullmatch(r"pvc:([^/]+)(?:/(.+))?", text)
    if match is None or not is_dns_subdomain(match[1]):
        raise ValueError("not pvc:NAME or pvc:NAME/SUBPATH")
    folder = match[2].strip("/") if match[2] else None
    if folder is not None and not is_plain_path(folder):
        raise ValueError("a subpath has letters, digits and ._/=+-, and no ..")
    return PersistentVolumeClaim(match[1], folder)


def read_place(value: Any) -> Any:
    """The claim or the bucket that a text names."""
    if isinstance(value, PersistentVolumeClaim | Bucket):
        return value
    text = str(value)
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) is None:
            raise ValueError("not s3://BUCKET/PREFIX: a bucket's name has 3 to 63 lower-case letters, digits, - and .")
        if not is_plain_path(prefix) or not prefix.strip("/"):
            raise ValueError("not s3://BUCKET/PREFIX: a prefix has letters, digits and ._/=+-, and no ..")
        return Bucket(bucket, prefix.strip("/"))
    claim = read_claim(value)
    if claim.folder is not None:
        raise ValueError("the storage is a whole claim: pvc:NAME; say which folder with run: in the run description")
    return claim


Claim = Annotated[PersistentVolumeClaim, BeforeValidator(read_claim)]
Place = Annotated[PersistentVolumeClaim | Bucket, BeforeValidator(read_place)]
