"""What a user can be told: every expected failure is one of these, one line, with its exit code."""

from __future__ import annotations


class MTIDSError(Exception):
    """Root of all expected failures. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class WorkFailedError(MTIDSError):
    """The arguments were fine, the work was not (a worker died for good, a loss became NaN)."""


class StoppedError(MTIDSError):
    """The run was asked to stop and left a checkpoint behind; the same command goes on from it."""

    exit_code = 3


class InputError(MTIDSError):
    """Bad arguments, configuration or input: says what, where, what was found and what is allowed.

    `InputError("unknown split", where="evaluate --split", found="tset", allowed="train, validation, test")`
    reads `evaluate --split: unknown split; found tset; allowed: train, validation, test`.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", found: object = None, allowed: str = "") -> None:
        line = f"{where}: {what}" if where else what
        if found is not None:
            line += f"; found {found}"
        if allowed:
            line += f"; allowed: {allowed}"
        super().__init__(" ".join(line.split()))
