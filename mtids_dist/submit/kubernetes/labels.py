"""How everything of one manifest is called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mtids_dist.submit.kubernetes.config import ManifestConfig
from mtids_dist.submit.kubernetes.names import RAYCRONJOB_NAME, RAYJOB_NAME
from mtids_dist.submit.kubernetes.operator_rules import QUEUE
from mtids_dist.submit.kubernetes.work import Work

APP = "mtids-dist"
INSTANCE = "app.kubernetes.io/instance"
PRIORITY = "kueue.x-k8s.io/priority-class"
HASH_DIGITS = 6


@dataclass(frozen=True)
class Named:
    """Name, labels, and the names of what comes along."""

    name: str
    verb: str
    account: str
    queue: str | None = None
    priority: str | None = None

    @property
    def config_map(self) -> str:
        """Of the resolved run description."""
        return f"{self.name}-run"

    @property
    def selector(self) -> dict[str, str]:
        """What all pods of this manifest have in common, and no others."""
        return {"app.kubernetes.io/name": APP, INSTANCE: self.name}

    def labels(self, component: str | None = None) -> dict[str, str]:
        """Of an object, or of a pod that plays a part in it."""
        part = {"app.kubernetes.io/component": component} if component else {}
        return {**self.selector, **part, "app.kubernetes.io/managed-by": APP, "mtids-dist/verb": self.verb}

    def queued(self) -> dict[str, str]:
        """Labels of the object that Kueue looks at."""
        waits = {QUEUE: self.queue, PRIORITY: self.priority}
        return {**self.labels(), **{key: value for key, value in waits.items() if value is not None}}


def named(config: ManifestConfig, work: Work) -> Named:
    """The names: as given, or made of the verb and the run folder, so that the same run has the same name."""
    name = config.name if config.name is not None else _name_of(work, RAYCRONJOB_NAME if config.cron else RAYJOB_NAME)
    return Named(name, work.verb, config.identity.service_account or name, config.queue, config.priority)


def _name_of(work: Work, longest: int) -> str:
    folder = "-".join(work.folder.parts[3:])  # below /mnt/storage or /mnt/store
    text = "".join(c if c.isascii() and (c.islower() or c.isdigit()) else "-" for c in f"{work.verb}-{folder}".lower())
    text = "-".join(part for part in text.split("-") if part)
    if len(text) <= longest:
        return text
    return f"{text[: longest - HASH_DIGITS - 1].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]}"
