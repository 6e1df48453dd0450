"""The Jobs client of a Ray cluster: one line for everything that can go wrong on the way to it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mtids_dist.errors import InputError, MTIDSError, WorkFailedError
from mtids_dist.submit.address import OVERRIDING, Address, Token
from mtids_dist.submit.states import Job, JobState

OLDEST_RAY = (2, 60)
"""What this package itself needs on the cluster."""
CONNECT_S, ANSWER_S = 5.0, 60.0
ASKED_AGAIN, AGAIN_S = 2, 1.0
READ_BYTES = 1 << 20
WHERE_TOKENS_ARE = "RAY_AUTH_TOKEN, a file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
QUIET = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.authentication")


class LostError(MTIDSError):
    """The cluster did not answer, or not properly; it may later."""


class Cluster:
    """The jobs of one cluster. Every call raises `LostError` while the cluster can't be reached."""

    def __init__(self, address: Address, token: Token | None, client: Any) -> None:
        self.address, self._token, self._client = address, token, client

    def jobs(self) -> list[Job]:
        """Everything that was submitted, the oldest first."""
        with self._reached():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.type.value == "SUBMISSION"]
        return sorted(jobs, key=lambda job: job.started_s or 0.0)

    def job(self, job_id: str) -> Job | None:
        """The job, if the cluster knows it."""
        try:
            with self._reached():
                return _job(self._client.get_job_info(job_id))
        except _NoSuchJobError:
            return None

    def known_job(self, job_id: str) -> Job:
        """The job.

        :raises InputError: the cluster doesn't know it.
        """
        job = self.job(job_id)
        if job is None:
            ids = [job.id for job in self.jobs() if not job.is_helper]
            raise InputError("no such job", where=self.address.url, found=job_id, allowed=", ".join(ids[-5:]) or "none is there")
        return job

    def submit(self, job_id: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Uploads what the runtime environment names and starts the job.

        :raises WorkFailedError: the cluster did not take it.
        """
        with self._reached():
            self._client.submit_job(
                submission_id=job_id, entrypoint=entrypoint, runtime_env=dict(runtime_env), metadata=dict(metadata)
            )

    def stop(self, job_id: str) -> None:
        """Ray's own stop: SIGTERM, and SIGKILL after RAY_JOB_STOP_WAIT_TIME_S (3 s where the job doesn't say)."""
        with self._reached():
            self._client.stop_job(job_id)

    def log(self, job_id: str) -> str:
        """All that the job has written so far."""
        try:
            with self._reached():
                return str(self._client.get_job_logs(job_id))
        except _NotUtf8Error:
            return self._log_file(job_id)

    def _log_file(self, job_id: str) -> str:
        """The log as bytes, where Ray can't read it as text; what is no UTF-8 is replaced."""
        job = self.known_job(job_id)
        if job.node_id is None:
            return ""
        data = b"".join(self.read(job.node_id, f"job-driver-{job_id}.log"))
        return re.sub("\r\n?", "\n", data.decode(errors="replace"))  # as Ray does it

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """The job's log from its beginning, in pieces, as it grows. May end or break off while the job still runs."""
        pieces: AsyncIterator[str] = self._client.tail_job_logs(job_id)
        return pieces

    def read(self, node_id: str, name: str) -> Iterator[bytes]:
        """A file below the log folder of a node, in pieces."""
        import requests

        query: dict[str, str | int] = {"node_id": node_id, "filename": name, "lines": -1, "timeout": 3600}
        url = f"{self.address.url}/api/v0/logs/file"
        with (
            self._reached(),
            requests.get(url, params=query, headers=_headers(self._token), stream=True, timeout=(CONNECT_S, ANSWER_S)) as answer,
        ):
            answer.raise_for_status()
            yield from answer.iter_content(READ_BYTES)

    def ask(self, path: str) -> Any:
        """What the dashboard answers at a path of its API, as JSON data."""
        import requests

        with self._reached():
            answer = requests.get(f"{self.address.url}{path}", headers=_headers(self._token), timeout=(CONNECT_S, ANSWER_S))
            answer.raise_for_status()
            return answer.json()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise _refused(self.address, self._token, missing="401" in str(error) or "required" in str(error)) from None
        except (requests.RequestException, OSError) as error:
            raise LostError(f"{self.address.url} does not answer: {_reason(error)}") from None
        except RuntimeError as error:  # the client's word for every answer but 200
            text = str(error)
            if "status code 404" in text:
                raise _NoSuchJobError(text) from None
            if "UnicodeDecodeError" in text:
                raise _NotUtf8Error(text) from None
            raise LostError(f"{self.address.url}: {text.strip().rstrip('.').splitlines()[-1]}") from None


class _NoSuchJobError(WorkFailedError):
    pass


class _NotUtf8Error(WorkFailedError):
    pass


def connect(address: Address, token: Token | None) -> Cluster:
    """The cluster at an address, once it has been seen to answer, to take the token and to run a Ray that ours can work with.

    :raises InputError: one line for each of these; nothing has been sent but the question for the version.
    """
    _check_version(address, _ray_version(address, token))
    with _without(OVERRIDING):
        return Cluster(address, token, _client(address, token))


def _client(address: Address, token: Token | None) -> Any:
    import requests
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
        """Ray's, which would wait for an answer for ever, and give up a question at the first hitch."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            for _ in range(ASKED_AGAIN if method == "GET" else 0):
                with suppress(requests.ConnectionError):
                    return super()._do_request(method, endpoint, timeout=(CONNECT_S, ANSWER_S), **options)
                time.sleep(AGAIN_S)
            return super()._do_request(method, endpoint, timeout=(CONNECT_S, ANSWER_S), **options)

    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    return Client(address.url, headers=_headers(token))


def _ray_version(address: Address, token: Token | None) -> str:
    import requests

    where = address.where
    try:
        answer = requests.get(f"{address.url}/api/version", headers=_headers(token), timeout=(CONNECT_S, ANSWER_S))
        if answer.status_code in (401, 403):
            raise _refused(address, token, missing=answer.status_code == 401)
        answer.raise_for_status()
        return str(answer.json()["ray_version"])
    except requests.HTTPError as error:
        raise InputError("this is no Ray dashboard", where=where, found=str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise InputError("this is no Ray dashboard", where=where, found="an answer without ray_version") from None
    except requests.RequestException as error:
        raise InputError("no Ray dashboard answers", where=where, found=_reason(error)) from None


def _check_version(address: Address, found: str) -> None:
    import ray
    from packaging.version import InvalidVersion, Version

    try:
        theirs = Version(found)
    except InvalidVersion:
        raise InputError("the cluster's Ray has no version", where=address.url, found=found) from None
    ours = Version(ray.__version__)
    if theirs.release[:2] < OLDEST_RAY or theirs.major != ours.major:
        oldest = ".".join(map(str, OLDEST_RAY))
        raise InputError(
            "the cluster's Ray does not match",
            where=address.url,
            found=found,
            allowed=f"{oldest} or later {ours.major}.x",
        )


def _refused(address: Address, token: Token | None, *, missing: bool) -> InputError:
    if missing or token is None:
        hint = " (RAY_AUTH_MODE=disabled: none was looked for)" if os.environ.get("RAY_AUTH_MODE") == "disabled" else ""
        return InputError(f"the cluster wants a token{hint}", where=address.url, found="none", allowed=WHERE_TOKENS_ARE)
    return InputError("the cluster refuses the token", where=address.url, found=f"the one from {token.source}")


def _headers(token: Token | None) -> dict[str, str]:
    return token.headers if token else {}


def _reason(error: BaseException) -> str:
    """The words at the bottom of a chain of wrapped connection errors."""
    while (inner := error.__context__ or next((a for a in error.args if isinstance(a, BaseException)), None)) is not None:
        error = inner
    said = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return said if said.isprintable() else "something else than HTTP"


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        state=JobState(details.status.value),
        entrypoint=details.entrypoint,
        metadata=details.metadata or {},
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        node_id=details.driver_node_id,
    )


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
