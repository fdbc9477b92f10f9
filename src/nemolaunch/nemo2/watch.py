"""The callbacks of a run, in the order in which they must be called."""

from __future__ import annotations

import os

from lightning.pytorch import Callback

from nemolaunch.nemo2 import profile
from nemolaunch.nemo2.callbacks import CheckpointSchedule, EvenValidation
from nemolaunch.nemo2.document_ends import DocumentEnds
from nemolaunch.nemo2.graceful_exit import GracefulExit
from nemolaunch.nemo2.hang_watch import HangWatch
from nemolaunch.nemo2.learning_rate import PlannedOptimizer
from nemolaunch.nemo2.metrics import MetricsFile
from nemolaunch.nemo2.mlm import MaskedTraining
from nemolaunch.nemo2.rank_watch import RankWatch
from nemolaunch.nemo2.stream_watch import StreamWatch
from nemolaunch.nemo2.update_guard import UpdateGuard
from nemolaunch.nemo2.validation_sets import ValidationSets
from nemolaunch.planning import Plan
from nemolaunch.ranks import documents


def callbacks_of(plan: Plan) -> tuple[list[Callback], list[Callback]]:
    """Return the callbacks to add before and after the recipe's own, one of which writes checkpoints.

    Those that a checkpoint's name depends on, or that decide that there is no time for one, must come before it. The
    metrics come before callbacks that may end the run, so that the row of the last step is written.
    """
    metrics = MetricsFile(plan)
    updates = UpdateGuard(plan, metrics.notice)
    metrics.skipped = lambda: updates.skipped
    before: list[Callback] = [CheckpointSchedule(), PlannedOptimizer(plan), GracefulExit(plan, metrics.event)]
    after: list[Callback] = [EvenValidation()]
    masked = MaskedTraining(plan) if plan.job.objective.objective == "mlm" else None
    after += [masked] if masked else []
    if plan.stream is None and documents.are_marked(plan.job):
        after.append(DocumentEnds(plan))
    hangs = HangWatch(plan.job.guards.hang_timeout, metrics.event)
    if plan.validation_sets:
        sets = ValidationSets(plan, masked.accuracy if masked else None)
        sets.progress = hangs.progress
        metrics.validated = lambda: sets.results
        after.append(sets)
    after += [metrics, updates, RankWatch(metrics.notice)]
    if plan.stream is not None:
        after.append(StreamWatch(plan, metrics.event))
    after += profile.callbacks(plan, int(os.environ.get("RANK") or 0))
    after.append(hangs)
    return before, after
