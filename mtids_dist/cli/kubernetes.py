"""The verb that makes a Kubernetes manifest of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from mtids_dist.cli.app import Overrides, Run, app, checks, epilog
from mtids_dist.console import errors, say
from mtids_dist.errors import InputError

Name = Annotated[str | None, typer.Option(help="its name; made of the verb and the run folder if not given")]
Namespace = Annotated[str | None, typer.Option(help="a namespace that exists; mtids-dist if not given")]
Image = Annotated[str | None, typer.Option(help="image with this package: name@sha256:...", metavar="REF")]
Storage = Annotated[str | None, typer.Option(help="where run folders live: pvc:NAME, or with --kind job s3://BUCKET/PREFIX")]
Archive = Annotated[str | None, typer.Option(help="the DICOM archive of prepare: pvc:NAME\\[/SUBPATH]")]
Nodes = Annotated[str | None, typer.Option(help="the node table, in the archive; nodes.csv if not given")]
Store = Annotated[
    str | None, typer.Option(help="a store on a claim of its own: pvc:NAME\\[/SUBPATH]; else data.store on the storage")
]
KindOption = Annotated[
    str | None, typer.Option("--kind", help="rayjob, cluster (a RayCluster that stays) or job (one pod, no KubeRay)")
]
SubmissionOption = Annotated[str | None, typer.Option("--submission", help="k8s (a pod that submits) or sidecar")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="pods; as many as ranks if not given")]
GpusPerWorker = Annotated[int | None, typer.Option(help="GPUs of a pod")]
Autoscale = Annotated[str | None, typer.Option(help="fewest and most pods", metavar="MIN:MAX")]
Queue = Annotated[str | None, typer.Option(help="Kueue's LocalQueue")]
Priority = Annotated[str | None, typer.Option(help="Kueue's WorkloadPriorityClass", metavar="CLASS")]
CronOption = Annotated[
    str | None, typer.Option("--cron", help="again and again, by this schedule (RayCronJob)", metavar="SCHEDULE")
]
Alpha = Annotated[bool, typer.Option("--alpha", help="the operator's alpha gate RayCronJob is on")]
Site = Annotated[Path | None, typer.Option(help="settings of a cluster, for all runs on it", metavar="SITE.yaml")]
SiteOverrides = Annotated[list[str] | None, typer.Option("--site-set", help="override one of them: a.b=c", metavar="KEY=VALUE")]
Apply = Annotated[bool, typer.Option("--apply", help="send it, and follow it to its end; its exit code is the work's")]
Context = Annotated[str | None, typer.Option(help="the kubeconfig's context to send it to, with --apply")]


@app.command(
    epilog=epilog("mtids-dist manifest train configs/mtids.yaml --site cluster/site.yaml --gpus-per-worker 1 > rayjob.yaml")
)
def manifest(
    verb: Annotated[str, typer.Argument(help="train, tune, prepare or evaluate", metavar="VERB")],
    run: Run,
    overrides: Overrides = None,
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    storage: Storage = None,
    archive: Archive = None,
    nodes: Nodes = None,
    store: Store = None,
    kind: KindOption = None,
    submission: SubmissionOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorker = None,
    autoscale: Autoscale = None,
    queue: Queue = None,
    priority: Priority = None,
    cron: CronOption = None,
    alpha: Alpha = False,
    site: Site = None,
    site_overrides: SiteOverrides = None,
    apply: Apply = False,
    context: Context = None,
) -> None:
    """Print a run as a Kubernetes manifest with all it needs, checked by the operator's own rules; or send and follow it."""
    from mtids_dist.config import load_run
    from mtids_dist.submit.kubernetes import cautions, read_settings, render, to_yaml

    if context is not None and not apply:
        raise InputError("a printed manifest goes nowhere", where="--context", found=context, allowed="with --apply")
    options = {
        **{"name": name, "namespace": namespace, "image": image, "storage": storage, "archive": archive, "nodes": nodes},
        **{"store": store, "kind": kind, "submission": submission, "queue": queue, "priority": priority},
        **{"workers.count": workers, "workers.gpus": gpus_per_worker, "workers.autoscale": autoscale},
        **{"cron.schedule": cron, "cron.alpha": alpha or None},
    }
    settings = read_settings(site, site_overrides or [], options)
    description = load_run(run, overrides or [])
    if verb in checks:
        checks[verb](description)
    work, documents = render(verb, description, settings, run_verbs=run_verbs())
    for caution in cautions(settings, work):
        errors.print(f"mtids-dist: {caution}", markup=False)
    if not apply:
        typer.echo(to_yaml(documents), nl=False)
        return
    _send(documents, context)


def run_verbs() -> set[str]:
    """The verbs of the app whose argument is a run description: whatever is added there can go into a manifest."""
    wanted = get_type_hints(manifest, include_extras=True)["run"]
    return {
        command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None and command.callback is not manifest
        if wanted in get_type_hints(command.callback, include_extras=True).values()
    }


def _send(documents: list[dict[str, Any]], context: str | None) -> None:
    from mtids_dist.submit.kubernetes import apply, follow

    cluster = apply(documents, context=context, say=say)
    try:
        end = follow(cluster, documents[-1], say=say)
    except KeyboardInterrupt:
        say("left running; the same command follows it again")
        raise
    raise typer.Exit(end.exit_code or 0)
