"""Options passed to sbatch: each must arrive unchanged, and none may break restarts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown
from nemolaunch.facts.submission import split_option
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

TEXTS = (
    *("partition", "account", "time", "qos", "gres", "constraint"),
    *("exclude", "reservation", "comment", "array"),
)
# sbatch options that have their own flag, with that flag's field
HAVE_FLAGS = {
    "account": "account",
    "partition": "partition",
    "time": "time",
    "nodes": "num_nodes",
    "ntasks-per-node": "num_gpus",
    "gpus-per-node": "gres",
    "qos": "qos",
    "gres": "gres",
    "constraint": "constraint",
    "exclude": "exclude",
    "reservation": "reservation",
    "comment": "comment",
    "array": "array",
    "dependency": "dependency",
}
# Options that the batch script sets itself and that restarts depend on
RESERVED = {
    *("output", "error", "job-name", "wrap", "export", "chdir"),
    *("ntasks", "no-requeue", "open-mode"),
}
_NAME = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_INTERFACE = re.compile(r"[\w.,:^=-]+", re.ASCII)
_DEPENDENCY = re.compile(
    r"(after|afterany|afterok|afternotok|aftercorr|afterburstbuffer)(:\d+(_\d+)?(\+\d+)?)+", re.ASCII
)
_CHAIN = re.compile(r"[0-9,:-]+%1", re.ASCII)
_IN_FOLDER = re.compile(r"%|,|:|/nemo_run")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check text options, pass-through options, arrays, dependencies, the interface and the run folder's path."""
    launch = resolved.job.launch
    if launch.executor != "slurm":
        return
    for name in TEXTS:
        value = getattr(launch, name)
        if value is not None and not _survives(value):
            yield error(
                "slurm-unprintable",
                f"{flag(name)} {value!r} contains a backslash, a line break or another unprintable character",
                *each(name, ["".join(c if _survives(c) else " " for c in value)]),
                about=name,
            )
    yield from _passed_through(launch.sbatch)
    if launch.array is not None and not _CHAIN.fullmatch(launch.array):
        whole = launch.array.partition("%")[0] + "%1"
        fixes = each("array", [whole]) if _CHAIN.fullmatch(whole) else (fix(array=None),)
        message = f"{shown('array', launch.array)} allows several tasks to run at once"
        yield error("slurm-array", message, *fixes, about="array")
    if launch.dependency is not None and not all(map(_DEPENDENCY.fullmatch, launch.dependency.split(","))):
        message = f"{shown('dependency', launch.dependency)} is not a comma-separated list like afterok:JOB"
        yield error("slurm-dependency", message, about="dependency")
    interface = launch.network_interface
    if interface is not None and not _INTERFACE.fullmatch(interface):
        message = f"{flag('network_interface')} {interface!r} is not a valid interface name"
        yield error("slurm-interface", message)
    folder = resolved.facts.run.folder
    found = _IN_FOLDER.search(folder)
    if found:
        message = f"{flag('output_dir')} {folder} contains {found[0]!r}, which Slurm or NeMo-Run would change"
        yield error("slurm-folder", message)


def _survives(value: str) -> bool:
    """Return whether sbatch reads the value unchanged: it treats a backslash as an escape even in quotes."""
    return value.isprintable() and "\\" not in value


def _passed_through(words: tuple[str, ...]) -> Iterator[Finding]:
    for word in words:
        name, value = split_option(word)
        without = fix(sbatch=tuple(w for w in words if w != word))
        if not _NAME.fullmatch(name) or not _survives(value or ""):
            message = f"--sbatch {word!r} is not an sbatch option of the form KEY=VALUE"
            yield error("slurm-option", message, without)
        elif name in RESERVED:
            yield error("slurm-option-reserved", f"--sbatch {word}: {name} is set by the job itself", without)
        elif name in HAVE_FLAGS and value != "none":
            message = f"--sbatch {word}: {name} has its own flag, {flag(HAVE_FLAGS[name])}"
            yield error("slurm-option-reserved", message, without)
