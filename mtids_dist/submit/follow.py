"""A job's log until the job is over, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from mtids_dist.errors import WorkFailedError
from mtids_dist.submit.cluster import Cluster, LostError
from mtids_dist.submit.states import Job

SILENCE_S = 30.0
"""After so long without a word the connection is made anew: it may be dead without anybody having been told."""
AGAIN_S, AGAIN_AT_MOST_S = 1.0, 15.0
PATIENCE_S = 600.0
"""How long a cluster may be out of reach."""


class Follower:
    """Writes a job's log from its first character to its last, each of them once; `follow` may be called again to go on."""

    def __init__(
        self,
        cluster: Cluster,
        job_id: str,
        write: Callable[[str], object],
        *,
        say: Callable[[str], object],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._cluster, self._job_id, self._write, self._say, self._patience_s = cluster, job_id, write, say, patience_s
        self._written = 0

    def follow(self) -> Job:
        """Returns the job when it is over and its log is written.

        :raises WorkFailedError: the cluster was out of reach for too long, or has forgotten the job.
        """
        job = self._look()
        while not job.state.is_over:
            asyncio.run(self._stream())
            job = self._look()
            if not job.state.is_over:
                time.sleep(AGAIN_S)
        return job

    def _look(self) -> Job:
        """Where the job stands, and what of its log has not come yet: a stream may end before the last lines."""
        give_up, pause_s, lost = time.monotonic() + self._patience_s, AGAIN_S, False
        while True:
            try:
                job = self._look_once()
                if lost:
                    self._say("the cluster answers again")
                return job
            except LostError as error:
                if time.monotonic() > give_up:
                    raise WorkFailedError(f"{error}, for {self._patience_s:g} s; {self._job_id} may still run") from None
                if not lost:
                    self._say(f"{error}; trying again for {self._patience_s:g} s")
                lost = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_AT_MOST_S)

    def _look_once(self) -> Job:
        job = self._cluster.job(self._job_id)
        if job is None:
            raise WorkFailedError(f"{self._cluster.address.url} no longer knows {self._job_id}: its head started anew?")
        self._take(self._cluster.log(self._job_id), begins_at=0)
        return job

    async def _stream(self) -> None:
        """One connection, until it ends, breaks or falls silent; what it was, the job's state will tell."""
        import aiohttp

        pieces, position = self._cluster.tail(self._job_id), 0
        with suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError, StopAsyncIteration):
            while True:
                piece = await asyncio.wait_for(anext(pieces), SILENCE_S)
                self._take(piece, begins_at=position)
                position += len(piece)

    def _take(self, text: str, *, begins_at: int) -> None:
        """Writes what is new in a piece of the log."""
        new = text[max(0, self._written - begins_at) :]
        if new:
            self._write(new)
            self._written = max(self._written, begins_at + len(text))
