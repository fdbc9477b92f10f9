"""Training on a stream of rows: what is fed between Bridge's steps, and the position that its checkpoints keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.core import parallel_state

from nemolaunch.bridge.datasets import Datasets, as_transformers_loads
from nemolaunch.bridge.loss import StepLoss
from nemolaunch.bridge.rank import device_of, is_first
from nemolaunch.bridge.saving import around_saves
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.ranks.start import start_checkpoint
from nemolaunch.ranks.step_metrics import StepMetrics
from nemolaunch.ranks.stream_source import Place, StreamSource
from nemolaunch.ranks.stream_steps import StreamSteps
from nemolaunch.run.folder import BRIDGE_STREAM
from nemolaunch.stream.state import StreamState
from nemolaunch.system.atomic_files import write_json


class Stream(Callback):
    """Feeds a run from its stream, and ends it with all ranks together if one of them has no samples left.

    Attributes:
        steps: decides that.
    """

    def __init__(self, plan: Plan, rows: StepMetrics, loss: StepLoss, data: Datasets) -> None:
        self._plan, self._loss, self._data = plan, loss, data
        self.steps = data.steps = StreamSteps(plan, rows.event)
        self._state: Any = None

    def on_data_init_start(self, context: CallbackContext) -> None:
        """Begin the session, at the position of the checkpoint that Bridge has loaded."""
        self._state = context.state
        start = start_checkpoint(self._plan)
        done = context.state.train_state
        self._source = StreamSource(
            self._plan,
            Place.of(parallel_state),
            as_transformers_loads(context.state.cfg.dataset.tokenizer),
            samples=int(done.consumed_train_samples),
            loaded=position_in(start) if start else None,
        )
        self._data.source = self._source
        self._data.train = self._source.train_feed(done.step)

    def on_train_start(self, context: CallbackContext) -> None:
        """Report the session, and wait for the samples of the first step."""
        around_saves(self._save, lambda step: None)
        step = context.state.train_state.step
        self.steps.begin(self._source, step)
        if not self._goes_on(context, step):
            context.state.cfg.checkpoint.save = (
                None  # Bridge would write the checkpoint that it has just loaded
            )

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Wait for the samples of the next step."""
        self._goes_on(context, context.state.train_state.step + 1)

    def _goes_on(self, context: CallbackContext, step: int) -> bool:
        """Return whether there is a step after that many, and end the run if there is none."""
        config = context.state.cfg
        if step >= config.train.train_iters:
            return True
        before = self.steps.waited_s
        go_on = self.steps.go_on(self._source, step, device_of(self._plan))
        self._loss.waited_between_s += self.steps.waited_s - before
        if not go_on:  # as `GracefulExit` ends a run: Bridge saves, and ends its callbacks
            config.validation.eval_interval = None
            config.train.train_iters = step
        return go_on

    def _save(self) -> None:
        """Write the position into the checkpoint's folder, before Bridge writes anything there.

        A checkpoint that is complete therefore has it.
        """
        step = self._state.train_state.step
        values = self._source.state(step, device_of(self._plan))
        if is_first():
            folder = Path(self._state.cfg.checkpoint.save) / f"iter_{step:07d}"
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / BRIDGE_STREAM, {**values, "readers": values["readers"].tolist()})
        self.steps.saved(self._source, values, step)

    def on_train_end(self, context: CallbackContext) -> None:
        """Flush the ledger, and stop the workers."""
        feed = self._source.feed
        assert feed is not None
        feed.sync()
        feed.close()


def position_in(checkpoint: Path) -> StreamState | None:
    """Return the position that a checkpoint has; None if it was not trained on a stream.

    Raises:
        NemolaunchError: it cannot be read.
    """
    path = checkpoint / BRIDGE_STREAM
    if not path.is_file():
        return None
    try:
        return StreamState.from_values(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NemolaunchError(
            f"the position in {path} cannot be read: {error}; --data-resume fresh starts the stream over"
        ) from error
