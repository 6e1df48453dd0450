"""Where a job stands, and what a command that waited for it exits with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

VERB, RUN, CONTENT, VERSION, HELPER = (f"mtids_dist.{name}" for name in ("verb", "run", "content", "version", "helper"))
"""Keys of a job's metadata: its verb, its run folder as the job sees it, a hash of what runs, our version, and what a short
job of our own is there for."""
PACKAGE = "mtids_dist"


class JobState(str, Enum):
    """Ray's own words."""

    PENDING = "PENDING"
    """Its environment is being made, or its driver waits for room."""
    RUNNING = "RUNNING"
    """Its command runs."""
    SUCCEEDED = "SUCCEEDED"
    """Its command ended with 0."""
    FAILED = "FAILED"
    """Its command ended with another code, or could not be started, or its node was lost."""
    STOPPED = "STOPPED"
    """Ray ended its command (SIGTERM, then SIGKILL): there is no exit code."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as the cluster tells of it; times are Unix times in seconds.

    :param exit_code: of its command; None while it runs, or where it never ended by itself.
    :param node_id: the node that its command runs on.
    """

    id: str
    state: JobState
    entrypoint: str
    metadata: Mapping[str, str]
    message: str = ""
    exit_code: int | None = None
    started_s: float | None = None
    ended_s: float | None = None
    node_id: str | None = None

    @property
    def verb(self) -> str:
        """Our verb, `exec`, or nothing where somebody else submitted it."""
        return self.metadata.get(VERB, "")

    @property
    def run(self) -> Path | None:
        """The run folder on the cluster's storage, where there is one."""
        run = self.metadata.get(RUN)
        return Path(run) if run else None

    @property
    def is_helper(self) -> bool:
        """Whether `jobs stop` or `jobs fetch` made it for a moment."""
        return HELPER in self.metadata

    @property
    def code(self) -> int:
        """What a command that waited for it exits with: the job's own code; 128 + n where signal n ended it."""
        if self.exit_code is None:
            return 0 if self.state is JobState.SUCCEEDED else 1
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code

    @property
    def hint(self) -> str:
        """What to do about a failure that is not the work's; nothing otherwise."""
        if self.state is JobState.FAILED and f"No module named {PACKAGE}" in self.message:
            return f"the cluster has no {PACKAGE}: submit it with --send-package"
        return ""

    def __str__(self) -> str:
        text = f"{self.id}: {self.state.value}"
        if self.exit_code is not None:
            text += f", exit code {self.code}"
            if self.verb and self.verb != "exec":
                text += {0: "", 2: " (bad arguments or input)", 3: " (stopped on request, with a checkpoint)"}.get(self.code, "")
        elif self.state is JobState.FAILED and self.message:
            text += f": {self.message.strip().splitlines()[-1]}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON data."""
        return {
            "id": self.id,
            "state": self.state.value,
            "verb": self.verb or None,
            "run": str(self.run) if self.run else None,
            "exit_code": self.code if self.exit_code is not None else None,
            "started_s": self.started_s,
            "ended_s": self.ended_s,
            "entrypoint": self.entrypoint,
            "message": self.message,
            "metadata": dict(self.metadata),
        }
