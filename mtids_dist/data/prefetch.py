"""Making items in a background thread while the consumer works, and measuring how long it had to wait."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1
_JOIN_S = 5.0


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


class Prefetched(Iterator[T], Generic[T]):
    """The items of a generator, made ahead in a thread that starts at once; an error there is raised here.

    `wait_s` is the time in seconds that the consumer has waited for items so far. Leaving early: `close`, or a `with` block.
    """

    def __init__(self, items: Generator[T, None, None], *, depth: int) -> None:
        self.wait_s = 0.0
        self._queue: Queue[T | _End] = Queue(maxsize=depth)
        self._stop = Event()
        self._thread = Thread(target=self._fill, args=(items,), name="prefetch", daemon=True)
        self._thread.start()

    def _fill(self, items: Generator[T, None, None]) -> None:
        end = _End()
        try:
            with closing(items):
                for item in items:
                    if not self._put(item):
                        return
        except BaseException as error:  # whatever it is, the consumer has to see it
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            with suppress(Full):
                self._queue.put(item, timeout=_POLL_S)
                return True
        return False

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        began = time.perf_counter()
        item = self._queue.get()
        self.wait_s += time.perf_counter() - began
        if not isinstance(item, _End):
            return item
        self.close()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and drop what it made; it may take as long as one item does."""
        self._stop.set()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(timeout=_JOIN_S)

    def __enter__(self) -> Prefetched[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
