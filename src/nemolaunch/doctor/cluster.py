"""A cluster's profile: whether what it names exists on the cluster, as far as that can be told without a job."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shutil import which
from typing import Any

from nemolaunch import catalogue
from nemolaunch.check import check_cluster
from nemolaunch.doctor.slurm import partition_verdict
from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts import Facts
from nemolaunch.facts import look as look_here
from nemolaunch.findings import Finding, Severity
from nemolaunch.job import Job
from nemolaunch.launching.over_ssh import look_there
from nemolaunch.launching.ssh_host import SshHost
from nemolaunch.resolve import resolve
from nemolaunch.resolve.cluster import partitions_of
from nemolaunch.slurm.site_setup import trial
from nemolaunch.slurm.submission import Shell, shell_here

PART = "cluster"
ANY_MODEL = "llama32_1b"  # rules about a cluster do not depend on it


def look(path: Path, values: Mapping[str, Any], ssh: str | None, python: str) -> Iterator[Verdict]:
    """Check a profile on the cluster, from this machine if it has sbatch, else over SSH.

    Args:
        values: the fields of the job that the profile sets.
        ssh, python: the login node and its Python.
    """
    named = ", ".join(sorted(values.keys() - {"executor"}))
    yield good(PART, f"{path} sets {named or 'nothing'}")
    if which("sbatch") is not None:
        yield from _look(Job().with_values(**values), None)
    elif ssh is None:
        yield bad(
            PART, "sbatch is not installed on this machine", "run this on a login node, or add `ssh: HOST`"
        )
    else:
        try:
            with SshHost(ssh, python) as host:
                yield from _look(Job().with_values(**values), host)
        except NemolaunchError as error:
            yield bad(PART, str(error), f"ssh {ssh}")


def _look(job: Job, host: SshHost | None) -> Iterator[Verdict]:
    if host is None:
        facts = look_here(job)
    else:
        job, facts = look_there(host, job)
        yield good(PART, f"{host.name} can be reached over SSH, and has a Python that works")
    if not facts.partitions:
        yield bad(PART, "sinfo does not respond: the controller cannot be reached", "scontrol ping")
        return
    yield from _partitions(job, facts)
    found = list(_findings(job, facts))
    yield from map(_verdict, found)
    codes = {finding.code for finding in found}
    if "slurm-account" not in codes and facts.accounting.accounts:
        yield good(PART, f"account {job.launch.account} is one of yours")
    shell = shell_here(os.environ) if host is None else _shell_on(host)
    yield from _image(job, facts, codes, shell)
    yield from _site(job, codes, shell)


def _partitions(job: Job, facts: Facts) -> Iterator[Verdict]:
    yield from map(partition_verdict, partitions_of(job.launch, facts))


def _findings(job: Job, facts: Facts) -> Iterable[Finding]:
    least = max((p.least_nodes for p in partitions_of(job.launch, facts)), default=1)
    asked = job.with_values(model_name=ANY_MODEL, num_nodes=least)
    resolved = resolve(asked, catalogue.model(ANY_MODEL), facts, {"account": "file", "partition": "file"})
    return check_cluster(resolved)


def _verdict(finding: Finding) -> Verdict:
    fixes = ", or ".join(str(fix) for fix in finding.fixes)
    advice = f"use {fixes}" if fixes else finding.rule
    if finding.severity is Severity.ERROR:
        return bad(PART, finding.message, advice)
    if finding.severity is Severity.WARNING:
        return warning(PART, finding.message, advice)
    return note(PART, finding.message)


def _shell_on(host: SshHost) -> Shell:
    def run(command: str) -> tuple[int, str, str]:
        answer = host.run(command)
        return answer.code, answer.out, answer.err

    return run


def _image(job: Job, facts: Facts, codes: set[str], shell: Shell) -> Iterator[Verdict]:
    if job.launch.runtime != "pyxis" or "slurm-image" in codes:
        return
    code, said, _ = shell("srun --help")
    if code == 0 and "--container-image" not in said:
        yield bad(
            PART,
            "srun has no option --container-image: Pyxis is not installed",
            "use `container-runtime: apptainer`, `podman` or `none`",
        )
    elif facts.image is not None:
        yield good(PART, f"the image {facts.image.path} is there")
    else:
        yield note(
            PART, f"the image {job.launch.container_image} comes from a registry, which is not tried here"
        )


def _site(job: Job, codes: set[str], shell: Shell) -> Iterator[Verdict]:
    """Try modules and the set-up script in a shell of their own on the login node."""
    text = trial(job.launch)
    if text is None or "slurm-setup" in codes:
        return
    with contextlib.suppress(OSError):
        code, _, err = shell(shlex.join(["bash", "-lc", text]))
        if code == 0:
            yield good(PART, "modules and set-up script work on the login node")
        else:
            said = (err.strip().splitlines() or [f"exit code {code}"])[-1]
            yield warning(
                PART,
                f"modules and set-up script fail on the login node: {said}",
                "correct them, or try on a node",
            )
