"""Numbers and addresses that Kubernetes can hold and Ray can start with: each check says in a few words what it wants."""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from mtids_dist.submit.kubernetes.names import checked

SUFFIXES: dict[str, int | Decimal] = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SUFFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
MOST = 2**31 - 1
"""Of an int32: what the API keeps counts and seconds in, and the highest user id."""
LEAST_MEMORY, MOST_MEMORY = "1Gi", "64Ti"
"""Of a pod. Below it Ray's head or raylet is killed while it starts; above it is no machine."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGT]|[KMGT]i)?")


def amount(quantity: str) -> Decimal:
    """The number in a Kubernetes quantity such as `500m` or `16Gi`.

    :raises ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError("not a quantity such as 16Gi or 64Gi")
    return Decimal(match[1]) * SUFFIXES[match[2] or ""]


def _memory(text: str) -> str:
    if not amount(LEAST_MEMORY) <= amount(text) <= amount(MOST_MEMORY):
        raise ValueError(f"a pod's memory is from {LEAST_MEMORY} to {MOST_MEMORY}")
    return text


def _cidr(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("not a network such as 10.0.0.1/32") from None


def is_interface(text: str) -> bool:
    """Whether the kernel, NCCL and gloo take it as the name of one network interface."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", text) is not None


Positive = Annotated[int, Field(gt=0, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]
Port = Annotated[int, Field(ge=1, le=65535)]
Memory = Annotated[str, AfterValidator(_memory)]
Cidr = Annotated[str, AfterValidator(_cidr)]
Interface = Annotated[str, checked(is_interface, "a network interface such as eth0: letters, digits and ._-, 15 at most")]
