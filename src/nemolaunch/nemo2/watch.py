"""The callbacks of a run, in the order in which they have to be called."""

from __future__ import annotations

import os

from lightning.pytorch import Callback

from nemolaunch.nemo2 import profile
from nemolaunch.nemo2.callbacks import CheckpointSchedule, EvenValidation
from nemolaunch.nemo2.graceful_exit import Leave
from nemolaunch.nemo2.hang_watch import HangWatch
from nemolaunch.nemo2.metrics import MetricsFile
from nemolaunch.nemo2.mlm import MaskedLanguageModel
from nemolaunch.nemo2.rank_watch import RankWatch
from nemolaunch.nemo2.stream_watch import StreamWatch
from nemolaunch.nemo2.update_guard import UpdateGuard
from nemolaunch.planning import Plan


def callbacks_of(plan: Plan) -> tuple[list[Callback], list[Callback]]:
    """What a trainer gets before and after the recipe's own callbacks, of which one writes checkpoints.

    Before it: what it takes a checkpoint's name from, and what decides that there is no time for one. The metrics
    come before what may end the run, so that the row of the last step is written.
    """
    metrics = MetricsFile(plan)
    updates = UpdateGuard(plan, metrics.notice)
    metrics.skipped = lambda: updates.skipped
    before: list[Callback] = [CheckpointSchedule()]
    if plan.submission is not None:
        before.append(Leave(plan, metrics))
    after: list[Callback] = [EvenValidation()]
    if plan.job.objective.objective == "mlm":
        after.append(MaskedLanguageModel(plan))
    after += [metrics, updates, RankWatch(metrics.notice)]
    if plan.stream is not None:
        after.append(StreamWatch(plan, metrics.event))
    after += profile.callbacks(plan, int(os.environ.get("RANK") or 0))
    after.append(HangWatch(plan.job.guards.hang_timeout, metrics.event))
    return before, after
