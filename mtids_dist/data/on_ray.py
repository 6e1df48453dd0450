"""Running a function over many items by Ray Data, with our progress instead of Ray's."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
import ray.data
from ray.data import DataContext, ExecutionOptions
from ray.exceptions import RayError

from mtids_dist.errors import WorkFailedError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def running_ray() -> Iterator[None]:
    """The caller's Ray if there is one, else a local one for the time of the block."""
    if ray.is_initialized():
        yield
        return
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def map_on_ray(function: Callable[[Item], Result], items: Sequence[Item], *, what: str, name: str) -> Iterator[Result]:
    """`function(item)` of every item, as each gets done; a task each, on as many CPUs as Ray has.

    A worker that dies has its item done again by another one. Raises WorkFailedError if `function` raises; what other
    items wrote until then stays.

    :param what: the work, in the words of an error line.
    :param name: what Ray's dashboard calls it; Ray makes a file of that name, so no slash in it.
    """
    if not items:
        return
    with DataContext.current(_quiet(DataContext.get_current().copy())), _no_console():
        blobs = [{"item": pickle.dumps(item)} for item in items]
        dataset = ray.data.from_items(blobs, override_num_blocks=len(blobs))
        dataset.set_name(name)
        try:
            for row in dataset.map(_Apply(function)).iter_rows():
                if row["error"]:
                    raise WorkFailedError(_line(what, row["error"]))
                yield pickle.loads(row["result"])  # noqa: S301 - our own task made it
        except RayError as error:
            raise WorkFailedError(_line(what, f"Ray gave up ({type(error).__name__})")) from error


def _line(what: str, cause: str) -> str:
    return " ".join(f"{what} failed: {cause}; what is finished is kept, the same command goes on".split())


class _Apply:
    """Bytes in, bytes out: our objects are no business of Arrow's, and our errors none of Ray's."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.__name__ = getattr(function, "__name__", "apply")

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes | str]:
        try:
            result = self._function(pickle.loads(row["item"]))  # noqa: S301 - our own driver made it
        except Exception as error:  # whatever it is: the driver raises it as one line
            return {"result": b"", "error": f"{type(error).__name__}: {error}"}
        return {"result": pickle.dumps(result), "error": ""}


def _quiet(context: DataContext) -> DataContext:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ExecutionOptions(preserve_order=False)
    return context


@contextmanager
def _no_console() -> Iterator[None]:
    """Ray Data logs to its session's files only."""
    handlers = [h for h in logging.getLogger("ray.data").handlers if type(h).__name__ == "PlainRayHandler"]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
