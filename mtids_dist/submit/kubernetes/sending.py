"""Sending manifests to a cluster, and following the work to its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import config as kube_config
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from mtids_dist.errors import InputError, WorkFailedError
from mtids_dist.submit.kubernetes.documents import Document
from mtids_dist.submit.kubernetes.labels import RUN
from mtids_dist.submit.kubernetes.outcome import Standing, standing

FIELD_MANAGER = "mtids-dist"
EVERY_S = 2.0
MOST_MISSES = 90
"""Polls without an answer, one after the other, until following is given up."""
NOT_FOUND = 404
ACCESS = "a kubeconfig (KUBECONFIG, else ~/.kube/config) and in it a context (--context) of a cluster that answers"

Say = Callable[[str], None]


class Cluster:
    """The cluster that the kubeconfig's context names, or the one that this process runs in."""

    def __init__(self, context: str | None = None) -> None:
        with _told("kubeconfig"):
            _load_access(context)
            self._client = DynamicClient(ApiClient())  # type: ignore[no-untyped-call]

    def find(self, document: Document) -> Document | None:
        """What is in the cluster by this kind and name."""
        try:
            found = self._resource(document).get(**_address(document))
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return dict(found.to_dict())

    def apply(self, document: Document) -> None:
        """Makes it so in the cluster (server-side apply), also where kubectl had made it before."""
        self._resource(document).server_side_apply(
            body=document, field_manager=FIELD_MANAGER, force_conflicts=True, **_address(document)
        )

    def _resource(self, document: Document) -> Any:
        return self._client.resources.get(api_version=document["apiVersion"], kind=document["kind"])


def apply(documents: list[Document], *, context: str | None = None, say: Say) -> Cluster:
    """Sends `documents`, the last of which is the work. What has begun under its name is left as it is.

    :raises InputError: no cluster answers, it does not know a kind, or refuses an object; another run has this name there.
    """
    cluster, work = Cluster(context), documents[-1]
    with _told("manifest --apply"):
        found = cluster.find(work)
        if found is not None:
            _check_same_run(found, work)
            say(f"{_name(work)} is there already: nothing sent; delete it to run it again")
            return cluster
        for document in documents:
            cluster.apply(document)
            say(f"{_name(document)} applied")
    return cluster


def follow(cluster: Cluster, work: Document, *, say: Say, every_s: float = EVERY_S) -> Standing:
    """Waits until `work` is over; says every change of how it stands, and returns the last.

    :raises WorkFailedError: it was deleted, or nobody has answered for some minutes.
    """
    last, misses = "", 0
    while True:
        try:
            found = cluster.find(work)
            misses = 0
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            misses += 1
            if misses > MOST_MISSES:
                raise WorkFailedError(f"{_name(work)}: the API server no longer answers: {_line(error)}") from error
            time.sleep(every_s)
            continue
        if found is None:
            raise WorkFailedError(f"{_name(work)} was deleted before it ended")
        now = standing({"kind": work["kind"], **found})
        if now.line != last:
            say(f"{_name(work)}: {now.line}")
            last = now.line
        if now.exit_code is not None:
            return now
        time.sleep(every_s)


def _check_same_run(found: Document, work: Document) -> None:
    """Its end would else be taken for that of a run that was never sent."""
    there, mine = ((document["metadata"].get("labels") or {}).get(RUN) for document in (found, work))
    if there != mine:
        raise InputError(
            f"{_name(work)} is there already, with another run description",
            where="manifest --apply",
            found=there,
            allowed=f"{mine}: delete what is there, or give this one another --name",
        )


def _load_access(context: str | None) -> None:
    """As kubectl does it; the client itself looks at KUBECONFIG only when it is imported."""
    paths = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    try:
        if context is None and not any(Path(path).exists() for path in paths.split(os.pathsep)):
            kube_config.load_incluster_config()  # type: ignore[no-untyped-call]
        else:
            kube_config.load_kube_config(config_file=paths, context=context)  # type: ignore[no-untyped-call]
    except (OSError, yaml.YAMLError) as error:
        raise ConfigException(f"{paths} is no kubeconfig: {_line(error)}") from error


def _address(document: Document) -> dict[str, str]:
    return {"name": document["metadata"]["name"], "namespace": document["metadata"]["namespace"]}


def _name(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['namespace']}/{document['metadata']['name']}"


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except ConfigException as error:
        raise InputError(f"no cluster to talk to: {_line(error)}", where=where, allowed=ACCESS) from error
    except ResourceNotFoundError as error:
        raise InputError(
            f"this cluster does not know a kind: {_line(error)}", where=where, allowed="install KubeRay's CRDs"
        ) from error
    except ApiException as error:
        raise InputError(f"the API server refuses it: {_line(error)}", where=where) from error
    except urllib3.exceptions.HTTPError as error:
        raise InputError(f"no API server answers: {_line(error)}", where=where, allowed=ACCESS) from error


def _line(error: Exception) -> str:
    """What an API server's Status object says, or the error itself."""
    try:
        return str(json.loads(getattr(error, "body", None) or "{}")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
