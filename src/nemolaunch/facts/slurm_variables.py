"""Environment variables that change what Slurm's commands do, and must not reach them from the user's shell.

`SBATCH_*` outranks the `#SBATCH` lines of a script (sbatch manual), `SLURM_*` of a surrounding job outranks the
options of a step (srun manual), and `SQUEUE_*` or `SINFO_*` change what a query lists.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

# Where the cluster is and how to log in to it
KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY"})
_SUBMIT = ("SBATCH", "SLURM", "SRUN", "SALLOC")
_QUERY = ("SQUEUE", "SINFO", "SACCT", "SACCTMGR", "SCONTROL", "SCANCEL")
_CHANGES = re.compile(rf"({'|'.join((*_SUBMIT, *_QUERY))})_\w+", re.ASCII)
_QUERIES = re.compile(rf"({'|'.join(_QUERY)})_", re.ASCII)


def removed(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the variables that a submission must not see."""
    return tuple(sorted(name for name in environment if _CHANGES.fullmatch(name) and name not in KEPT))


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without them."""
    gone = set(removed(environment))
    return {name: value for name, value in environment.items() if name not in gone}


def submits_differently(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those that would change a submission, rather than only what a query lists."""
    return {name: environment[name] for name in removed(environment) if not _QUERIES.match(name)}


def in_plain_shell(command: str) -> str:
    """Return the shell command that runs a command without them, on a machine whose environment is not known."""
    kinds = "\\|".join(_SUBMIT)
    names = rf"^\(\({kinds}\)_[A-Za-z0-9_]*\)=.*"
    unset = (
        f"for n in $(env | sed -n 's/{names}/\\1/p'); do "
        f"case $n in {'|'.join(sorted(KEPT))}) ;; *) unset $n ;; esac; done"
    )
    return shlex.join(["sh", "-c", f"{unset}; {command}"])
