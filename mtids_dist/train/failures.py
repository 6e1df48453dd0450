"""What a failed fit means: a lost worker, which is replaced, or an error in the work itself, which would only come again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ray.exceptions import RayActorError
from ray.train import ControllerError, TrainingFailedError

from mtids_dist.errors import MTIDSError, WorkFailedError

CONNECTION_WORDS = ("connection closed", "connection reset", "broken pipe", "socket", "nccl", "timed out")
"""How the ranks that are left complain when one of them is gone."""


def worker_was_lost(error: BaseException) -> bool:
    """Whether a process or node went away, rather than the work failing by itself."""
    if isinstance(error, ControllerError):
        return True
    causes = list(_causes(error))
    if any(isinstance(cause, MTIDSError) for cause in causes):
        return False
    return any(isinstance(cause, RayActorError) or _is_about_connections(cause) for cause in causes)


def told(error: BaseException, logs: Path) -> MTIDSError:
    """What the user is told: a worker's own one-line error where there is one, else the last line of the first."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, MTIDSError):
            return cause
    last = (str(causes[0]) if causes else str(error)).strip().splitlines()
    return WorkFailedError(f"training failed: {last[-1] if last else type(error).__name__}; see {logs}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The workers' own exceptions in a failed fit, unwrapped; the error itself where it is none."""
    failures = getattr(error, "worker_failures", {}) if isinstance(error, TrainingFailedError) else {}
    for failure in failures.values() or (error,):
        yield failure
        # Ray Train wraps what the loop raised, and what a health check found.
        for name in ("_base_exc", "health_check_failure"):
            inner = getattr(failure, name, None)
            if isinstance(inner, BaseException):
                yield inner


def _is_about_connections(error: BaseException) -> bool:
    text = str(error).splitlines()[-1:] or [""]
    return isinstance(error, RuntimeError) and any(word in text[0].lower() for word in CONNECTION_WORDS)
