"""Methods by name, with what their makers require filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")


def make_by_name(
    makers: Mapping[str, Callable[..., T]], defaults: Mapping[str, Mapping[str, Any]], name: str, options: Mapping[str, Any]
) -> T:
    """What the maker of that name makes of the options.

    :param defaults: options of a maker where none are given.
    :raises ValueError: an unknown name, an option that the maker does not have, or an extra package that it needs.
    """
    if name not in makers:
        close = get_close_matches(name, makers, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`name` must be one of {', '.join(makers)}, found {name!r}{hint}")
    try:
        return makers[name](**{**defaults.get(name, {}), **options})
    except (TypeError, ImportError) as error:
        raise ValueError(f"`{name}` can't be made with options {dict(options)}: {error}") from error
