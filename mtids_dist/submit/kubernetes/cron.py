"""Cron schedules as the operator reads them: five fields, or a descriptor; and time zones."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
"""Name, lowest and highest number, and names for the numbers."""

_DESCRIPTOR = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every (\d+(h|m|s))+")


def check_schedule(text: str) -> str:
    """`text`, if the operator can read it.

    :raises ValueError: which field is wrong.
    """
    if "TZ" in text:
        raise ValueError("no time zone in a schedule; it has a setting of its own, cron.time_zone")
    if _DESCRIPTOR.fullmatch(text):
        return text
    parts = text.split()
    if text.startswith("@") or len(parts) != len(FIELDS):
        raise ValueError("a schedule has five fields (minute hour day-of-month month day-of-week), or is @hourly, @daily, ...")
    for part, (name, low, high, names) in zip(parts, FIELDS, strict=True):
        for item in part.split(","):
            _check_item(item, name, low, high, names)
    return text


def _check_item(item: str, name: str, low: int, high: int, names: list[str]) -> None:
    span, slash, step = item.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        raise ValueError(f"{name}: a step is a positive number, found {item}")
    if span in ("*", "?"):
        return
    numbers = [
        names.index(end.lower()) + low if end.lower() in names else int(end) if end.isdigit() else -1 for end in span.split("-")
    ]
    if len(numbers) > 2 or any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
        raise ValueError(f"{name}: from {low} to {high}, found {item}")


def check_time_zone(text: str) -> str:
    """`text`, if there is such a zone; where this machine knows none at all, the operator has to judge.

    :raises ValueError: there is none.
    """
    known = available_timezones()
    if known and text not in known:
        raise ValueError("not a time zone such as Europe/Berlin")
    return text


TimeZone = Annotated[str, AfterValidator(check_time_zone)]
Schedule = Annotated[str, AfterValidator(check_schedule)]
