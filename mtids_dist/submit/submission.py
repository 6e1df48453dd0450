"""What is sent: data first, shown by a dry run; then the same data laid out for Ray's client."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mtids_dist import __version__
from mtids_dist.errors import InputError
from mtids_dist.submit.call import Call
from mtids_dist.submit.states import CONTENT, RUN, VERB, VERSION
from mtids_dist.submit.upload import Upload, list_upload

ID_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PACKAGE = Path(__file__).parents[1]
OF_RAY = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""What Ray itself tells a job; another value is dropped, or the job never starts."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job before it is sent.

    :param environment: set by the user, over what the call itself sets.
    :param package: our own package, where the cluster doesn't have it.
    :param given_id: the id that the user wants; else one is derived from what runs.
    """

    call: Call
    upload: Upload
    environment: Mapping[str, str] = field(default_factory=dict)
    package: Upload | None = None
    given_id: str | None = None

    def __post_init__(self) -> None:
        if self.given_id is not None and not ID_RULE.fullmatch(self.given_id):
            raise InputError("no valid id", where="--id", found=self.given_id, allowed="letters, digits, dot, dash, up to 100")

    @cached_property
    def content(self) -> str:
        """A hash of everything that decides what runs: the same content is the same job."""
        package = self.package.digest() if self.package else None
        parts = [self.call.entrypoint, dict(sorted(self.env_vars.items())), self.upload.digest(), package]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def id(self) -> str:
        """As given, or readable: the verb, what it works on, and a part of the content's hash."""
        if self.given_id is not None:
            return self.given_id
        subject = self.call.run.name if self.call.run else self.call.words[0] if self.call.verb == "exec" else ""
        slug = re.sub(r"[^a-z0-9]+", "-", Path(subject).name.lower()).strip("-")[:40]
        return "-".join(part for part in (self.call.verb, slug, self.content[:8]) if part)

    @property
    def env_vars(self) -> dict[str, str]:
        """Environment of the command and of all workers."""
        return self.call.environment | dict(self.environment)

    @property
    def metadata(self) -> dict[str, str]:
        """What other commands know the job by."""
        run = {RUN: str(self.call.run)} if self.call.run else {}
        return {VERB: self.call.verb, VERSION: __version__, CONTENT: self.content, **run}

    def to_json(self) -> dict[str, Any]:
        """Exactly what would be sent; folders in `runtime_env` stand for the listed files of them."""
        runtime_env: dict[str, Any] = {"env_vars": self.env_vars, "working_dir": str(self.upload.root)}
        if self.package:
            runtime_env["py_modules"] = [str(self.package.root)]
        return {
            "submission_id": self.id,
            "entrypoint": self.call.entrypoint,
            "metadata": self.metadata,
            "runtime_env": runtime_env,
            "files": _listed(self.upload),
            "bytes": self.upload.size_bytes,
            "left_out": {reason: list(names) for reason, names in self.upload.left_out.items()},
            **({"package_files": _listed(self.package)} if self.package else {}),
        }

    @contextmanager
    def staged(self) -> Iterator[dict[str, Any]]:
        """The runtime environment with nothing but the listed files behind it, for as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="mtids-submit-") as home:
            packed = Path(home, "working_dir.zip")
            self.upload.write_zip(packed)  # empty, too: else the job would work wherever `ray start` was typed
            runtime_env: dict[str, Any] = {"env_vars": self.env_vars, "working_dir": str(packed)}
            if self.package:
                copy = Path(home, PACKAGE.name)
                _copy(self.package, copy)
                runtime_env["py_modules"] = [str(copy)]
            yield runtime_env


def own_package() -> Upload:
    """This very package, as it lies here."""
    return list_upload(PACKAGE)


def read_environment(pairs: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping.

    :raises InputError: a word that is none, or a variable that is Ray's own.
    """
    found = dict(pair.partition("=")[::2] for pair in pairs)
    for pair in pairs:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", pair):
            raise InputError("no KEY=VALUE", where="--env", found=pair, allowed="for example GLOO_SOCKET_IFNAME=eth0")
    for name in found.keys() & set(OF_RAY):
        raise InputError("Ray sets this variable itself", where="--env", found=name)
    return found


def _listed(upload: Upload) -> list[dict[str, Any]]:
    return [{"path": str(file.path), "bytes": file.size_bytes} for file in upload.files]


def _copy(upload: Upload, target: Path) -> None:
    for file in upload.files:
        copy = target / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(upload.root / file.path, copy)
