"""`VERB ARGS...` as a job would run it: read by the verb's own parser, and refused here if the verb would refuse it there."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mtids_dist.errors import InputError
from mtids_dist.submit.upload import Upload

if TYPE_CHECKING:
    from mtids_dist.config import RunConfig

EXEC = "exec"
DESCRIPTION = "RUN.yaml"
"""How the command line writes a run description, as an argument or as an option's value."""
REHEARSES = "check"
"""The option by which a verb only looks at what it would do: nothing works in the run folder then."""
STOP_WAIT_S = 120
"""Ray kills 3 s after it asked a job to stop: too soon for a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a job runs.

    :param words: of its command.
    :param run: the run folder as the job sees it, of a verb that has one.
    :param reads: argument -> relative path, which the job can only find in what is sent.
    """

    verb: str
    words: tuple[str, ...]
    run: Path | None = None
    reads: Mapping[str, Path] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """For the shell."""
        return shlex.join(self.words)

    @property
    def environment(self) -> dict[str, str]:
        """Of the command and of the workers that it starts."""
        found = {"MTIDS_DIST_ADDRESS": "auto"}
        return found | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)} if self.run else found

    def check_sent(self, upload: Upload) -> None:
        """Refuses relative paths that the job would not find.

        :raises InputError: naming the argument.
        """
        for name, path in self.reads.items():
            if path not in upload:
                raise InputError(
                    "a job finds under a relative path only files that are sent with it, and this is none",
                    where=f"submit {self.verb}: {name}",
                    found=path,
                    allowed="an absolute path on storage that every node sees, or a file in --working-dir that is not left out",
                )


def call_of(
    words: Sequence[str], verbs: Mapping[str, Any], root: Path, *, checks: Mapping[str, Callable[[RunConfig], None]]
) -> Call:
    """What `words`, a verb and its arguments or `exec` and a command, would run in a copy of the folder `root`.

    :param verbs: name -> its command as typer knows it: parameters, and `make_context`, which parses.
    :param checks: name -> what the verb refuses in a description whose settings are each valid.
    :raises InputError: no such verb, an invalid run description, a relative path where the job needs one on shared storage.
    :raises Exception: the parser's own complaint about the arguments.
    """
    verb, arguments = (words[0], list(words[1:])) if words else ("", [])
    if verb == EXEC:
        if not arguments:
            raise InputError("no command", where="submit exec", allowed="submit exec -- COMMAND...")
        return Call(verb=EXEC, words=tuple(arguments))
    if verb not in verbs:
        raise _no_such_verb(verb, verbs)
    command = verbs[verb]
    values = command.make_context(verb, list(arguments)).params
    config = _description(command, values, root)
    if config is not None and verb in checks:
        checks[verb](config)
    run = _run_folder(verb, config, root) if config is not None and _keeps_run(command) else None
    return Call(
        verb=verb,
        words=("python", "-m", "mtids_dist", verb, *arguments),
        run=None if values.get(REHEARSES) else run,
        reads=dict(_relative_arguments(command, values)),
    )


def _no_such_verb(verb: str, verbs: Mapping[str, Any]) -> InputError:
    near = get_close_matches(verb, verbs, n=1)
    hint = f"did you mean {near[0]}? one of " if near else ""
    return InputError("no such verb", where="submit", found=verb or "none", allowed=f"{hint}{', '.join((*verbs, EXEC))}")


def _is_description(parameter: Any) -> bool:
    return bool(parameter.metavar == DESCRIPTION)


def _keeps_run(command: Any) -> bool:
    """Whether a verb works in the run folder of a description that it must be given."""
    return any(_is_description(each) and each.required for each in command.params)


def _description(command: Any, values: Mapping[str, Any], root: Path) -> RunConfig | None:
    """The run description that a verb would read, checked; None for a verb that reads none."""
    of_description = [each.name for each in command.params if _is_description(each)]
    if not of_description:
        return None
    from mtids_dist.config import load_run, parse_run, with_overrides  # with torch: only where there is something to check

    path, overrides = values[of_description[0]], values.get("overrides") or []
    return load_run(root / path, overrides) if path else parse_run(with_overrides({}, overrides), where="--set")


def _run_folder(verb: str, config: RunConfig, root: Path) -> Path:
    """The run folder, once every path in the description is one that a job can use."""
    for key, path in _paths(config):
        if not path.is_absolute():
            raise InputError(
                f"{key} is a relative path, and a job has another working directory",
                where=f"submit {verb}",
                found=path,
                allowed=f"an absolute path that every node sees; if that is here: --set {key}={root.absolute() / path}",
            )
    return config.run


def _paths(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            yield prefix + name, value
        elif isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")


def _relative_arguments(command: Any, values: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(value, Path) and not value.is_absolute():
            yield parameter.metavar or parameter.opts[0], value
