"""Which cluster is meant, and the token for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtids_dist.errors import InputError

OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray's client lets these win over the address that it is given, without a word; here they only stand in for it."""
LOCAL = "http://127.0.0.1:8265"
WANTED = "the dashboard's address, for example http://head:8265"


@dataclass(frozen=True)
class Address:
    """Where a cluster's dashboard answers.

    :param source: who named it.
    :param overruled: environment variables that name another one and are not followed.
    """

    url: str
    source: str
    overruled: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """For a message about it."""
        return f"--address {self.url}" if self.source == "--address" else f"{self.url} ({self.source})"

    @property
    def note(self) -> str:
        """What the user should be told about the choice; nothing where it is plain."""
        if self.overruled:
            return f"going to {self.url} as {self.source} says, not where {' and '.join(self.overruled)} points"
        return "" if self.source == "--address" else f"going to {self.url} ({self.source})"


@dataclass(frozen=True)
class Token:
    """What authenticates us, and where it was found."""

    value: str
    source: str

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Authorization": f"Bearer {self.value}"}


def choose_address(typed: str | None, environ: Mapping[str, str]) -> Address:
    """What was typed, else what Ray's own variables name, else this machine.

    :raises InputError: something else than an HTTP address.
    """
    named = {name: environ[name] for name in OVERRIDING if environ.get(name)}
    if typed is not None:
        url = _url(typed, "--address")
        return Address(url, "--address", tuple(f"{name}={value}" for name, value in named.items() if not _same(value, url)))
    for name, value in named.items():
        # Inside a job RAY_ADDRESS is where the cluster's own port listens, which is no dashboard.
        if name == OVERRIDING[0] or value.startswith(("http://", "https://")):
            return Address(_url(value, name), name)
    unfit = " and ".join(f"{name}={value}" for name, value in named.items())
    return Address(LOCAL, "no --address was given" + (f", and {unfit} is no dashboard's address" if unfit else ""))


def find_token(environ: Mapping[str, str]) -> Token | None:
    """The token, where Ray itself looks for it; None where there is none or RAY_AUTH_MODE turns authentication off.

    :raises InputError: RAY_AUTH_TOKEN_PATH names a file that can't be read.
    """
    if environ.get("RAY_AUTH_MODE", "token") == "disabled":
        return None
    if environ.get("RAY_AUTH_TOKEN"):
        return Token(environ["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN")
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environ.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        if named:
            raise InputError(f"the token can't be read: {error.strerror}", where=f"RAY_AUTH_TOKEN_PATH {path}") from None
        return None
    return Token(value, str(path)) if value else None


def _url(address: str, where: str) -> str:
    url = address if "://" in address else f"http://{address}"
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url) or address == "auto":
        raise InputError("no address of a Ray dashboard", where=where, found=address, allowed=WANTED)
    return url.rstrip("/")


def _same(address: str, url: str) -> bool:
    return address.rstrip("/") in (url, url.removeprefix("http://"))
