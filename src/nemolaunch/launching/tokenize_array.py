"""Tokenising as a Slurm job array: a task for each share of the files, then a job that merges them."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import UsageError
from nemolaunch.slurm.submission import sbatch, shell_here
from nemolaunch.system.atomic_files import write_text


@dataclass(frozen=True, kw_only=True)
class Array:
    """A job array to submit.

    Attributes:
        words: arguments of `nemolaunch tokenize` for every task; each finds its share in Slurm's variables.
        merges: for each output, the prefixes of its shards in order and the prefix of the merged output.
        folder: for the scripts and logs of the jobs; visible to all nodes.
        cwd: the folder that relative paths in `words` start from.
        setup: shell commands that run first.
    """

    name: str
    words: list[str]
    merges: list[tuple[list[Path], Path]]
    folder: Path
    cwd: Path
    num_nodes: int
    account: str
    partition: str
    time: str | None = None
    setup: tuple[str, ...] = ()


def array_script(array: Array) -> str:
    """Return the batch script of the array: exclusive nodes, requeued and resumed after a node fails."""
    command = shlex.join([sys.executable, "-m", "nemolaunch.cli.main", "tokenize", *array.words])
    return _script(
        array, "tokenize", ["--array=1-" + str(array.num_nodes), "--exclusive", "--mem=0"], [command]
    )


def merge_script(array: Array) -> str:
    """Return the batch script of the job that merges the shards."""
    commands = []
    for inputs, output in array.merges:
        words = [
            sys.executable,
            "-m",
            "nemolaunch.cli.main",
            "merge",
            *map(str, inputs),
            "--output",
            str(output),
        ]
        commands.append(shlex.join([*words, "--overwrite"]))
    return _script(array, "merge", [], commands)


def _script(array: Array, what: str, more: list[str], commands: list[str]) -> str:
    log = array.folder / f"{array.name}-{what}-%j.log"
    options = [
        f"--job-name={what}-{array.name}",
        f"--account={array.account}",
        f"--partition={array.partition}",
        "--nodes=1",
        "--ntasks=1",
        *([f"--time={array.time}"] if array.time else []),
        f"--chdir={array.cwd}",
        f"--output={log}",
        "--open-mode=append",
        "--requeue",
        *more,
    ]
    lines = [f"#SBATCH {_quoted(option)}" for option in options]
    return "\n".join(["#!/bin/bash", *lines, "set -e", *array.setup, *commands]) + "\n"


def _quoted(option: str) -> str:
    """Quote an option for `#SBATCH`. Raises UsageError for characters that cannot be quoted."""
    if any(character in option for character in '"\\\n'):
        raise UsageError(f"sbatch options cannot contain quotes, backslashes or line breaks: {option!r}")
    name, _, value = option.partition("=")
    return f'{name}="{value}"' if any(c in value for c in " '#;$`()") else option


def submit(array: Array) -> tuple[str, str | None]:
    """Write and submit the scripts: the array, then the merge job, which runs if the array succeeds.

    Return both job ids; the second is None if there is nothing to merge.
    """
    script = array.folder / f"{array.name}-tokenize.sh"
    write_text(script, array_script(array))
    shell = shell_here(os.environ)
    first = sbatch([str(script)], shell)
    if not array.merges:
        return first, None
    script = array.folder / f"{array.name}-merge.sh"
    write_text(script, merge_script(array))
    return first, sbatch([f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes", str(script)], shell)
