"""Between the steps of a run on streams: whether all ranks have samples for another step, and what was read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from nemolaunch.planning import Plan
from nemolaunch.ranks.log import log
from nemolaunch.ranks.stream_source import StreamSource
from nemolaunch.stream.state import StreamState

READY, ENDED, FAILED = 0, 1, 2


class StreamSteps:
    """Waits for the next step's samples, so that all ranks end together if one of them has none.

    This takes one small all-reduce per step. If a rank's data fails, the run ends with a checkpoint of the last step.

    Args:
        event: called with the kind of an event, the step and values, for the metrics file.

    Attributes:
        ended: whether the stream has.
        error: why a rank has no samples, if its data has failed.
        waited_s: seconds that this rank has waited here.
    """

    def __init__(self, plan: Plan, event: Callable[..., None]) -> None:
        self._until_once = plan.job.stream.stopping_strategy == "all-exhausted"
        self._event = event
        self.ended = False
        self.error: str | None = None
        self.waited_s = 0.0

    def begin(self, source: StreamSource, step: int) -> None:
        """Report the session."""
        session = source.begun.session
        self._event("stream", step, session=session.number, resume=session.resume, shuffle_seed=session.seed)

    def go_on(self, source: StreamSource, step: int, device: torch.device) -> bool:
        """Wait for the samples of the step after that many; return whether there are any. All ranks must call it."""
        feed, begin = source.feed, time.perf_counter()
        assert feed is not None
        feed.prepare(source.samples_of_step(step))
        self.waited_s += time.perf_counter() - begin
        mine = FAILED if feed.error else ENDED if feed.ended else READY
        votes = torch.tensor([mine, int(not feed.once)], dtype=torch.int32, device=device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        state, unread = votes.tolist()
        if state == FAILED:
            self._fail(feed.error, step)
        elif state == ENDED:
            self._end("a source has no more rows", step)
        elif self._until_once and not unread:
            self._end("every source has been read", step)
        return not (self.ended or self.error)

    def _end(self, why: str, step: int) -> None:
        self.ended = True
        log.info(f"the stream ends after step {step}: {why}")
        self._event("stream ended", step, text=why)

    def _fail(self, mine: str | None, step: int) -> None:
        errors: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(errors, mine)
        self.error = next(error for error in errors if error)
        log.info(f"exiting after step {step}: {self.error}")

    def saved(self, source: StreamSource, values: dict[str, Any], step: int) -> None:
        """Flush the ledger, and report what was read, at a checkpoint with the stream's state."""
        assert source.feed is not None
        source.feed.sync()
        state = StreamState.from_values(values)
        fed = [
            {"source": name, "rows": rows, "tokens": tokens, "epochs": epochs}
            for name, (rows, tokens, epochs) in zip(state.names, state.totals(), strict=True)
        ]
        self._event("fed", step, sources=fed)
