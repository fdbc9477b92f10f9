"""Comparison of the checks with NeMo's own verdict on random jobs."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import check_jobs
from random_jobs import random_values

from nemolaunch import catalogue
from nemolaunch.check import check
from nemolaunch.findings import errors
from truth import build
from truth.silent import OUR_NUMBERS, excused
from truth.verdict import refused_by_us, verdict

MOST_FIXES = 40
MODELS = [recipe.name for recipe in catalogue.recipes()]
FLAVOURS = list(catalogue.flavours())


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw a job: random, fixed until the checks pass, or fixed and then changed in one or two flags."""
    wild = random_values(rng, MODELS + FLAVOURS)
    kind = rng.random()
    if kind < 0.25:
        return wild
    values = fixed(wild, rng)
    if kind > 0.55:
        other = random_values(rng, [values["model_name"]])
        for name in rng.sample(sorted(other), k=rng.choice((1, 1, 2))):
            values[name] = other[name]
    return values


def fixed(values: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return the values after applying the checks' fixes until there are none left."""
    values = dict(values)
    for _ in range(MOST_FIXES):
        found = [f for f in errors(check(check_jobs.resolved(check_jobs.job(**values)))) if f.fixes]
        if not found:
            break
        values.update(rng.choice(found[0].fixes).changes)
    return values


def compare(seed: int, count: int) -> dict[str, Any]:
    """Draw jobs and compare both verdicts. Errors in numbers that NeMo never sees do not count.

    Returns counts: `accepted` and `refused` by both; `silent`, by code, refused by us alone for a known reason;
    `codes`, how often each code was found, and `alone`, how often it was the only one and NeMo refused as well;
    `stages`, where NeMo refused; and `disagreements`, each with its job.
    """
    build.prepare()
    rng = random.Random(seed)
    totals: Counter[str] = Counter()
    by_code: dict[str, Counter[str]] = {"codes": Counter(), "alone": Counter(), "silent": Counter()}
    stages: Counter[str] = Counter()
    disagreements = []
    for _ in range(count):
        values = draw(rng)
        ours, theirs = refused_by_us(values), verdict(values)
        if not theirs and "out-of-range" in ours:
            without_ours = {name: value for name, value in values.items() if name not in OUR_NUMBERS}
            ours = refused_by_us(without_ours)
        by_code["codes"].update(ours)
        if theirs:
            stages[theirs.split(":")[0]] += 1
        if bool(ours) == bool(theirs):
            totals["refused" if ours else "accepted"] += 1
            if len(ours) == 1:
                by_code["alone"][ours[0]] += 1
        elif ours and excused(ours, values):
            totals["silent"] += 1
            by_code["silent"].update(ours)
        else:
            disagreements.append({"values": values, "ours": ours, "theirs": theirs})
    return {**totals, **by_code, "stages": stages, "disagreements": disagreements}
