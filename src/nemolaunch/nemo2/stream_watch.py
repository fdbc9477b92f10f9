"""Between the steps of a run on streams: check whether there is another step, and save the stream's state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.stream_data import StreamDataModule
from nemolaunch.planning import Plan
from nemolaunch.ranks import speed
from nemolaunch.ranks.log import log
from nemolaunch.ranks.stream_feed import RankFeed
from nemolaunch.stream.state import StreamState

READY, ENDED, FAILED = 0, 1, 2


class StreamWatch(Callback):
    """Waits for the next step's samples, so that all ranks end together if one of them has none.

    This takes one small all-reduce per step. If a rank's data fails, the run ends with a checkpoint of the last step.
    """

    def __init__(self, plan: Plan, event: Callable[..., None]) -> None:
        self._until_once = plan.job.stream.stopping_strategy == "all-exhausted"
        self._event = event
        self.ended = False
        self.error: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the session, and wait for the samples of the first step."""
        session = _data(trainer).begun.session
        self._event(
            "stream",
            trainer.global_step,
            session=session.number,
            resume=session.resume,
            shuffle_seed=session.seed,
        )
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Wait for the samples of the next step."""
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= trainer.max_steps or trainer.should_stop:
            return
        feed, begin = _feed(trainer), time.perf_counter()
        _data(trainer).prepare()
        timed = speed.timed_data(trainer)
        if timed is not None:
            timed.waited_s += time.perf_counter() - begin
        mine = FAILED if feed.error else ENDED if feed.ended else READY
        votes = torch.tensor([mine, int(not feed.once)], dtype=torch.int32, device=pl_module.device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        state, unread = votes.tolist()
        if state == FAILED:
            self._fail(trainer, feed.error)
        elif state == ENDED:
            self._end(trainer, "a source has no more rows")
        elif self._until_once and not unread:
            self._end(trainer, "every source has been read")

    def _end(self, trainer: Trainer, why: str) -> None:
        self.ended = trainer.should_stop = True
        log.info(f"the stream ends after step {trainer.global_step}: {why}")
        self._event("stream ended", trainer.global_step, text=why)

    def _fail(self, trainer: Trainer, mine: str | None) -> None:
        """End with a checkpoint; the error is raised once that is written."""
        errors: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(errors, mine)
        self.error = next(error for error in errors if error)
        trainer.limit_val_batches = 0
        trainer.should_stop = True
        log.info(f"exiting after step {trainer.global_step}: {self.error}")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the stream's state to the checkpoint, and report what was read."""
        data, feed = _data(trainer), _feed(trainer)
        data.check_taken()
        values = data.stream_state()
        checkpoint[type(data).__qualname__]["stream"] = values
        feed.sync()
        state = StreamState.from_values(values)
        fed = [
            {"source": name, "rows": rows, "tokens": tokens, "epochs": epochs}
            for name, (rows, tokens, epochs) in zip(state.names, state.totals(), strict=True)
        ]
        self._event("fed", trainer.global_step, sources=fed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Flush the ledger."""
        _feed(trainer).sync()


def _data(trainer: Trainer) -> StreamDataModule:
    return cast(StreamDataModule, trainer.datamodule)  # type: ignore[attr-defined]


def _feed(trainer: Trainer) -> RankFeed:
    feed = _data(trainer).feed
    assert feed is not None
    return feed
