"""Suggested fixes work: applying them ends in a job without errors."""

from __future__ import annotations

import random
from typing import Any

import check_jobs
import pytest
from random_jobs import random_values

from nemolaunch import catalogue
from nemolaunch.check import check
from nemolaunch.estimate import estimate
from nemolaunch.findings import Finding, errors
from nemolaunch.job import Job
from nemolaunch.planning import judged

GPUS = (None, None, "a100-40", "h100", "h200", "b200")
MODELS = [recipe.name for recipe in catalogue.recipes()] + list(catalogue.flavours())
MOST_FIXES = 40


def drawn(rng: random.Random) -> dict[str, Any]:
    """Return a random job, sometimes with a GPU, whose memory is then checked."""
    return {**random_values(rng, MODELS), "gpu": rng.choice(GPUS)}


def verdict(job: Job) -> tuple[Finding, ...]:
    """Return all errors, of the rules and of the estimates."""
    resolved = check_jobs.resolved(job)
    return errors(judged(resolved, estimate(resolved)))


def fixed(job: Job, rng: random.Random | None = None) -> Job:
    """Apply fixes until there are none left: always the first, or a random one."""
    for _ in range(MOST_FIXES):
        found = [finding for finding in verdict(job) if finding.fixes]
        if not found:
            return job
        finding = rng.choice(found) if rng else found[0]
        fix = rng.choice(finding.fixes) if rng else finding.fixes[0]
        changed = job.with_values(**fix.changes)
        assert changed != job, f"{finding} changes nothing"
        job = changed
    raise AssertionError(f"no end of fixes: {[str(f) for f in verdict(job)]}")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("at_random", [False, True])
def test_applying_fixes_ends_in_a_job_without_errors(seed: int, at_random: bool) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        values = drawn(rng)
        job = fixed(check_jobs.job(**values), rng if at_random else None)
        left = [finding for finding in verdict(job) if finding.code != "gpu-memory"]  # no layout may fit
        assert left == [], values


def test_each_fix_alone_removes_its_finding() -> None:
    rng = random.Random(7)
    for _ in range(200):
        job = check_jobs.job(**drawn(rng))
        for finding in errors(check(check_jobs.resolved(job))):
            for fix in finding.fixes:
                after = check(check_jobs.resolved(job.with_values(**fix.changes)))
                assert finding.code not in [f.code for f in after], (str(finding), str(fix))
