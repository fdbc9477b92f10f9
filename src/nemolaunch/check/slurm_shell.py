"""Variables of the user's shell that would change a submission to Slurm."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import fix, note, warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

SHOWN = 6
# Variables that set what a flag of the job sets, too (sbatch manual, Input Environment Variables)
FIELDS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_QOS": "qos",
    "SBATCH_GRES": "gres",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_RESERVATION": "reservation",
}


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Say which variables are not passed on to sbatch, and which of them differ from the job's own values."""
    variables = resolved.facts.slurm_variables
    if not variables or resolved.job.launch.executor != "slurm":
        return
    differing = {
        name: variables[name]
        for name, field in FIELDS.items()
        if name in variables and variables[name] != resolved.job.get(field)
    }
    others = [name for name in variables if name not in differing]
    if differing:
        yield warning(
            "slurm-shell-variables",
            f"{' and '.join(f'{name}={value}' for name, value in differing.items())} of this shell "
            f"{'is' if len(differing) == 1 else 'are'} not passed to sbatch, where the job's own options apply",
            fix(**{FIELDS[name]: value for name, value in differing.items()}),
        )
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        yield note(
            "slurm-shell-variables",
            f"{', '.join(others[:SHOWN])}{more} of this shell {'is' if len(others) == 1 else 'are'} not passed to "
            "sbatch, where they would override the job's own options",
        )
