"""What Kubernetes accepts as a name, a label, an image: each check says in a few words what it wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

RAYJOB_NAME = 47
RAYCLUSTER_NAME = 53
RAYCRONJOB_NAME = 36
"""KubeRay's longest names (v1.7.0, `utils/constant.go`): the operator adds a suffix, and a label holds 63 characters."""

LABEL = 63
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>(?:{_PART}(?::\d+)?/)?{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>.+))?"
)


def is_dns_label(text: str, *, letter_first: bool = False, longest: int = LABEL) -> bool:
    """Whether `text` is a DNS-1123 label, or the stricter DNS-1035 (`letter_first`)."""
    return (
        len(text) <= longest and re.fullmatch(f"{'[a-z]' if letter_first else '[a-z0-9]'}([a-z0-9-]*[a-z0-9])?", text) is not None
    )


def is_dns_subdomain(text: str) -> bool:
    """Whether `text` is DNS labels with dots between them, 253 characters at most."""
    return len(text) <= 253 and all(is_dns_label(part) for part in text.split("."))


def is_label_value(text: str) -> bool:
    """Whether `text` can be the value of a label."""
    return len(text) <= LABEL and re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", text) is not None


def is_label_key(text: str) -> bool:
    """Whether `text` can be the key of a label: `name` or `domain/name`."""
    domain, slash, name = text.rpartition("/")
    return bool(name) and is_label_value(name) and (not slash or is_dns_subdomain(domain))


def is_plain_path(text: str) -> bool:
    """Whether a path passes through two shells, a mount and Ray's command line unharmed, and stays below where it begins."""
    return re.fullmatch(r"[A-Za-z0-9._/=+-]+", text) is not None and ".." not in text.split("/")


def image_parts(image: str) -> tuple[str, str | None, str | None]:
    """Name, tag and digest of an image reference (which has been checked)."""
    match = _IMAGE.fullmatch(image)
    assert match is not None
    return match["name"], match["tag"], match["digest"]


def checked(good: Callable[[str], bool], wanted: str) -> AfterValidator:
    """Refuses a text that is not `good`, saying what is `wanted`."""

    def check(text: str) -> str:
        if not good(text):
            raise ValueError(f"not {wanted}")
        return text

    return AfterValidator(check)


def _image(text: str) -> str:
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise ValueError("not an image reference, for example registry.example/mtids-dist@sha256:...")
    if match["digest"] is not None:
        if re.fullmatch(r"sha256:[0-9a-f]{64}", match["digest"]) is None:
            raise ValueError("a digest is sha256: and 64 hexadecimal digits")
    elif match["tag"] in (None, "latest"):
        raise ValueError("latest is whatever was pushed last; name a digest (name@sha256:...) or at least a version's tag")
    return text


Namespace = Annotated[str, checked(is_dns_label, "a namespace: lower-case letters, digits and -, 63 characters at most")]
ObjectName = Annotated[str, checked(is_dns_subdomain, "an object's name: lower-case letters, digits, - and .")]
LabelKey = Annotated[str, checked(is_label_key, "a label's key: [domain/]name, the name 63 characters at most")]
LabelValue = Annotated[str, checked(is_label_value, "a label's value: letters, digits, -, _ and ., 63 characters at most")]
PlainPath = Annotated[str, checked(is_plain_path, "a path of letters, digits and ._/=+- without ..")]
Image = Annotated[str, AfterValidator(_image)]
