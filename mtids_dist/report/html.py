"""What every page is made of: its template, sections of pictures, and a log's events as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mtids_dist import __version__
from mtids_dist.report.ink import Picture


@dataclass(frozen=True)
class Section:
    """Pictures under one heading; without any, `otherwise` is said in their place."""

    title: str
    pictures: list[Picture]
    otherwise: str


@dataclass(frozen=True)
class Event:
    """One event of a log as text."""

    time: str
    name: str
    told: str


def render(template: str, **context: Any) -> str:
    """A template of this room filled in, as HTML; what it asks for and is not given is an error."""
    environment = Environment(
        loader=PackageLoader("mtids_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **context)


def told_events(lines: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The events of a log, each with all that it says of itself."""
    return [Event(_clock(line.get("time_s")), str(line.get("event", "")), _told(line)) for line in lines]


def _told(line: Mapping[str, Any]) -> str:
    said = {key: value for key, value in line.items() if key not in ("kind", "event", "time_s")}
    return "; ".join(f"{key}: {_value(value)}" for key, value in said.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(time_s: Any) -> str:
    try:
        return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
