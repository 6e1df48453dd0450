"""What runs beside the work, again and again, until its pod is asked to go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def until_asked_to_end(work: Callable[[], object], *, every_s: float) -> None:
    """Calls `work` every so many seconds, and once more after SIGTERM or SIGINT."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(every_s):
        work()
    work()
