"""What is refused before anything is rendered: settings that contradict each other or the run; and what is only said."""

from __future__ import annotations

from collections.abc import Iterator

from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig, Submission, Toleration
from mtids_dist.submit.kubernetes.names import image_parts
from mtids_dist.submit.kubernetes.work import Work, copies_to_bucket, pods


def check(config: ManifestConfig, work: Work) -> None:
    """Refuses what would never start, or not do what was meant.

    :raises InputError: the first thing that is wrong.
    """
    _check_gpus(config, work)
    if config.kind is Kind.JOB:
        _check_one_pod(config)
    else:
        _check_sizes(config, work)
    _check_queue(config)
    _check_cron(config)
    if config.kind is not Kind.RAYJOB and config.submission is Submission.SIDECAR:
        raise InputError("only a RayJob is submitted", where="--submission sidecar", found=f"kind {config.kind.value}")
    for group, size in (("workers", config.workers), ("cpu_workers", config.cpu_workers), ("head", config.head)):
        for toleration in size.tolerations:
            _check_toleration(toleration, f"{group}.tolerations")


def _check_toleration(toleration: Toleration, where: str) -> None:
    equal, valued = toleration.operator == "Equal", toleration.value is not None
    if equal != valued or (equal and toleration.key is None):
        found = ", ".join(f"{key}: {value}" for key, value in toleration.model_dump(exclude_none=True).items())
        raise InputError("Equal needs a key and a value, Exists has no value", where=where, found=f"{{{found}}}")


def _check_gpus(config: ManifestConfig, work: Work) -> None:
    gpus = config.workers.gpus
    if gpus and not work.ranks:
        raise InputError(f"{work.verb} computes on CPUs: a GPU would idle", where="--gpus-per-worker", found=gpus, allowed="0")
    name, tag, _ = image_parts(config.image)
    if gpus and "cpu" in (*name.rpartition("/")[2].split("-"), *(tag or "").split("-")):
        raise InputError("this image has no CUDA", where="--image", found=config.image, allowed="the cuda target's image")
    wanted = work.run.train.scale.gpus_per_worker
    if work.ranks and wanted and not gpus:
        raise InputError(
            "ranks want GPUs, pods have none",
            where="--gpus-per-worker",
            found=f"train.scale.gpus_per_worker {wanted:g}, {gpus} a pod",
            allowed="at least 1, or --set train.scale.gpus_per_worker=0",
        )


def _check_one_pod(config: ManifestConfig) -> None:
    for wrong, option in (
        (config.workers.autoscale is not None, "--autoscale"),
        ((config.workers.count or 1) != 1, "--workers"),
        (bool(config.cpu_workers.count), "cpu_workers.count"),
        (config.cron is not None, "--cron"),
    ):
        if wrong:
            raise InputError("a plain Job is one pod", where=f"{option} with --kind job", allowed="--kind rayjob")


def _check_sizes(config: ManifestConfig, work: Work) -> None:
    workers, scale = config.workers, work.run.train.scale
    if workers.autoscale is not None:
        fewest, most = workers.autoscale
        if work.verb == "tune" and fewest == 0 and config.kind is Kind.RAYJOB:
            raise InputError(
                "tune shares out the pods that are there when it begins, and there would be none",
                where="--autoscale",
                found=f"{fewest}:{most}",
                allowed="at least 1 at any time, 1:MAX",
            )
        if fewest > most:
            raise InputError("fewest are more than most", where="--autoscale", found=f"{fewest}:{most}", allowed="MIN:MAX")
        if workers.count is not None:
            raise InputError("a fixed size or a growing one", where="--workers with --autoscale", allowed="one of the two")
    most = pods(config, work.ranks)
    if most == 0:
        wanted = f"train.scale.workers {scale.workers}" if work.ranks else work.verb
        raise InputError(f"no pod for {wanted}: the head takes no work", where="--workers", found=0, allowed="at least 1")
    if not work.ranks:
        return
    cpus, gpus = scale.workers * (scale.cpus_per_worker or 0), scale.workers * (scale.gpus_per_worker or 0)
    room = f"{most} pods of {workers.cpus} CPUs and {workers.gpus} GPUs"
    found = f"{scale.workers} ranks of {scale.cpus_per_worker or 0:g} CPUs and {scale.gpus_per_worker or 0:g} GPUs"
    if cpus > most * workers.cpus or gpus > most * workers.gpus:
        raise InputError("the ranks would never find room", where="train.scale", found=found, allowed=room)


def _check_queue(config: ManifestConfig) -> None:
    if config.priority is not None and config.queue is None:
        raise InputError(
            "a Kueue priority class without a queue", where="--priority", found=config.priority, allowed="--queue NAME"
        )
    if config.queue == "":
        raise InputError("a queue has a name", where="--queue")


def _check_cron(config: ManifestConfig) -> None:
    if config.cron is None:
        return
    if config.kind is not Kind.RAYJOB:
        raise InputError("only a RayJob comes again", where="--cron", found=f"kind {config.kind.value}", allowed="--kind rayjob")
    if not config.cron.alpha:
        raise InputError(
            "RayCronJob is behind an alpha gate that is off by default in KubeRay 1.7 (featureGates RayCronJob=true)",
            where="--cron",
            allowed="--alpha, if your operator has the gate on",
        )


def _after_the_deadline(config: ManifestConfig) -> str:
    """The operator's deletionRules could end it at once, but know no deadline (it is Failed, as a job that broke), leave the
    cluster of a stopped job for good, and forbid shutdownAfterJobFinishes, without which Kueue's jobs can't be suspended."""
    limits, past = config.limits, f"after {config.limits.deadline_s} s"
    if config.kind is Kind.CLUSTER:
        return "limits.deadline_s is a job's: a cluster that stays knows none"
    if not limits.shutdown:
        return f"{past} the operator calls the job failed, but ends nothing: its pods work on until it is deleted"
    if limits.ttl_s == 0:
        return f"{past} the job has failed and its pods are told to go: a checkpoint first, if the verb writes any"
    return (
        f"{past} the operator calls the job failed, but its pods work on for {limits.ttl_s} s (limits.ttl_s) and are told to go "
        "then; limits.ttl_s=0 ends them at the deadline"
    )


def cautions(config: ManifestConfig, work: Work) -> Iterator[str]:
    """What is allowed, and should be known."""
    _, tag, digest = image_parts(config.image)
    if digest is None:
        yield f"the image's tag {tag} can be moved under a job that is tried again; a digest can't (name@sha256:...)"
    if config.submission is Submission.SIDECAR:
        yield (
            "the operator's sidecar has no securityContext, so a namespace that enforces the restricted Pod Security level "
            "refuses the head; --submission k8s passes"
        )
    if config.workers.autoscale is not None and work.verb == "tune":
        fewest = config.workers.autoscale[0]
        yield f"tune shares out the cluster that it finds when it starts: the {fewest} pods that are there then"
    if config.limits.deadline_s is not None and config.kind is not Kind.JOB:
        yield _after_the_deadline(config)
    if config.cron is not None:
        yield "every RayJob of a RayCronJob works on the one run folder: a finished run is not begun again"
    if copies_to_bucket(config, work):
        yield "the run folder is copied to the bucket every 30 s and at the end: a node lost at once loses what came since"
