"""How everything of one manifest is called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig
from mtids_dist.submit.kubernetes.names import RAYCRONJOB_NAME, RAYJOB_NAME
from mtids_dist.submit.kubernetes.operator_rules import QUEUE
from mtids_dist.submit.kubernetes.work import Work

APP = "mtids-dist"
INSTANCE = "app.kubernetes.io/instance"
PRIORITY = "kueue.x-k8s.io/priority-class"
RUN = "mtids-dist/run"
"""Label of the work: which run description it has."""
HASH_DIGITS = 6
RUN_DIGITS = 10


@dataclass(frozen=True)
class Named:
    """Name, labels, and the names of what comes along."""

    name: str
    verb: str
    account: str
    run: str | None
    """digits of the run description's content; None: a cluster that stays has none"""
    queue: str | None = None
    priority: str | None = None

    @property
    def config_map(self) -> str:
        """Of the resolved run description. Another content has another name: a job can only run the one that it came with."""
        return f"{self.name}-run-{self.run}"

    @property
    def selector(self) -> dict[str, str]:
        """What all pods of this manifest have in common, and no others."""
        return {"app.kubernetes.io/name": APP, INSTANCE: self.name}

    def labels(self, component: str | None = None) -> dict[str, str]:
        """Of an object, or of a pod that plays a part in it."""
        part = {"app.kubernetes.io/component": component} if component else {}
        return {**self.selector, **part, "app.kubernetes.io/managed-by": APP, "mtids-dist/verb": self.verb}

    def work(self) -> dict[str, str]:
        """Labels of the work itself, at which Kueue looks."""
        more = {RUN: self.run, QUEUE: self.queue, PRIORITY: self.priority}
        return {**self.labels(), **{key: value for key, value in more.items() if value is not None}}


def named(config: ManifestConfig, work: Work) -> Named:
    """The names: as given, or made of the kind, the verb and the run folder, so that the same run has the same name."""
    name = config.name if config.name is not None else _name_of(config, work)
    run = None if config.kind is Kind.CLUSTER else hashlib.sha256(work.description.encode()).hexdigest()[:RUN_DIGITS]
    return Named(name, work.verb, config.identity.service_account or name, run, config.queue, config.priority)


def _name_of(config: ManifestConfig, work: Work) -> str:
    """A name of its own for each kind: they share account and policy by it, and the operator calls the Job that submits a RayJob,
    and the cluster of one, after it."""
    kind = "cron" if config.cron else "" if config.kind is Kind.RAYJOB else config.kind.value
    folder = work.folder.parts[3:]  # below /mnt/storage or /mnt/store
    longest = RAYCRONJOB_NAME if config.cron else RAYJOB_NAME
    text = "".join(
        c if c.isascii() and (c.islower() or c.isdigit()) else "-" for c in "-".join((kind, work.verb, *folder)).lower()
    )
    text = "-".join(part for part in text.split("-") if part)
    if len(text) <= longest:
        return text
    return f"{text[: longest - HASH_DIGITS - 1].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]}"
