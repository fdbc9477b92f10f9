"""The preflight of a training rank, before its framework is imported."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.preflight.command import command
from nemolaunch.preflight.judge import UNFIT_CODE, Trouble, unfit
from nemolaunch.preflight.place import Place
from nemolaunch.ranks import slurm_rank
from nemolaunch.ranks.log import log
from nemolaunch.system.quantities import counted

TIMEOUT_S = 1800  # of the whole: meetings and collectives have shorter ones
SHOWN = 4
LONGEST_ERROR = 400
MARK = "preflight: "


class Unfit(NemolaunchError):
    """A node of the job, this rank's own among them, is slow or sick."""


class UnfitElsewhere(NemolaunchError):
    """Another node of the job than that of this rank is slow or sick."""


def require_fit_nodes(plan: Plan) -> None:
    """Measure the nodes of the job together with all other ranks.

    Raises:
        Unfit: in the ranks of nodes that are slow or sick.
        UnfitElsewhere: in all other ranks.
        NemolaunchError: the nodes could not be measured.
    """
    place = Place.here()
    log.info(f"preflight of {counted(place.world_size, 'rank')}")
    troubles = _measure(plan, place)
    for trouble in troubles:
        log.info(f"preflight, {trouble.level}: {trouble}")
    named = unfit(troubles)
    if named:
        kind = Unfit if place.node in named else UnfitElsewhere
        raise kind(message(troubles))
    log.info("preflight: all nodes are fit")


def message(troubles: tuple[Trouble, ...]) -> str:
    """Return what is wrong with the unfit nodes in one line."""
    grave = [str(trouble) for trouble in troubles if trouble.node in unfit([trouble])]
    more = f"; and {len(grave) - SHOWN} more" if len(grave) > SHOWN else ""
    return MARK + "; ".join(grave[:SHOWN]) + more


def _measure(plan: Plan, place: Place) -> tuple[Trouble, ...]:
    # torchrun is the parent of all ranks on this machine, and another one at the next start
    attempt = slurm_rank.this_attempt() if plan.submission is not None else f"local-{os.getppid()}"
    environment = {**plan.environment, **os.environ}
    if os.environ.get("LOCAL_WORLD_SIZE") == str(place.world_size):
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name may not resolve
    try:
        done = subprocess.run(
            [sys.executable, *command(plan), "--attempt", attempt],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
    except subprocess.TimeoutExpired:
        raise NemolaunchError(f"{MARK}not finished after {TIMEOUT_S} s, see the logs of all ranks") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode not in (0, UNFIT_CODE):
        raise NemolaunchError(f"{MARK}the nodes could not be measured: {_error(lines, done.returncode)}")
    return tuple(Trouble(**row) for row in json.loads(lines[-1]))


def _error(lines: list[str], code: int) -> str:
    """Return the error that the measuring process has printed; its exit code if it was killed."""
    with contextlib.suppress(ValueError, KeyError, IndexError):
        return str(json.loads(lines[-1])["error"])[:LONGEST_ERROR]
    return f"exit code {code}"
