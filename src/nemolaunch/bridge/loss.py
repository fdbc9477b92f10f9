"""The loss of each step on every rank, before its update, the time spent waiting for data, and masked tokens.

Bridge reduces the loss after the update, and returns it on the last pipeline stage only. The guards need it before,
and the metrics on the first rank.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from megatron.bridge.training.gpt_step import forward_step
from megatron.core import parallel_state
from megatron.core.models.common.language_module.language_module import LanguageModule
from torch import Tensor

from nemolaunch.planning import Plan
from nemolaunch.ranks.masked_accuracy import MaskedAccuracy
from nemolaunch.ranks.speed import TimedIterator

LOSS = "lm loss"


class StepLoss:
    """Collects what the micro batches of a step report, and reduces it as Bridge does.

    Attributes:
        accuracy: counts the masked tokens of a validation; None unless the objective is to predict them.
        waited_between_s: seconds that this rank has waited for data between steps.
    """

    def __init__(self, plan: Plan) -> None:
        masked = plan.job.objective.objective == "mlm"
        self.accuracy = MaskedAccuracy(parallel_state.get_tensor_model_parallel_group) if masked else None
        self._parts: list[Tensor] = []
        self._value: float | None = None
        self._data: dict[int, TimedIterator] = {}
        self.waited_between_s = 0.0

    @property
    def waited_s(self) -> float:
        """Seconds that this rank has waited for data since its start."""
        return self.waited_between_s + sum(data.waited_s for data in self._data.values())

    def listen_to(self, chunks: Any) -> None:
        """Read the logits of the model, if masked tokens are counted."""
        for module in (module for chunk in chunks for module in chunk.modules()):
            if self.accuracy is not None and isinstance(module, LanguageModule):
                self.accuracy.listen_to(module)

    def begin(self) -> None:
        """Forget the previous step, and what a validation has reported since."""
        self._parts.clear()
        self._value = None

    def forward_step(self) -> Any:
        """Return Bridge's forward step for the training loop, whose losses are collected here."""
        forward = self.validation_step()

        @functools.wraps(forward_step)
        def collected(state: Any, data_iterator: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            output, loss_of = forward(state, self._timed(data_iterator), model, *args, **kwargs)

            def noted(output_tensor: Any) -> Any:
                found = loss_of(output_tensor)
                self._parts.append(found[2][LOSS].detach())
                return found

            return output, noted

        return collected

    def validation_step(self) -> Any:
        """Return Bridge's forward step for a validation, which counts masked tokens."""
        if self.accuracy is None:
            return forward_step
        accuracy = self.accuracy

        @functools.wraps(forward_step)  # Bridge looks at the names of its arguments
        def counted(*args: Any, **kwargs: Any) -> Any:
            output, loss_of = forward_step(*args, **kwargs)

            def noted(output_tensor: Any) -> Any:
                accuracy.count(loss_of.args[0])  # the mask of the loss
                return loss_of(output_tensor)

            return output, noted

        return counted

    def _timed(self, data: Any) -> TimedIterator | None:
        if data is None:
            return None
        return self._data.setdefault(id(data), TimedIterator(data))

    def value(self) -> float:
        """Return the mean over the tokens of the global batch. A collective: every rank must call it."""
        if self._value is None:
            self._value = float(self._reduced())
        return self._value

    def _reduced(self) -> Tensor:
        """Add up over micro batches and data parallel ranks, and tell the other pipeline stages."""
        found = torch.zeros(2, dtype=torch.float32, device=torch.cuda.current_device())
        if parallel_state.is_pipeline_last_stage(ignore_virtual=True):
            found = torch.vstack([part.view(-1) for part in self._parts]).sum(dim=0)
            group = parallel_state.get_data_parallel_group(with_context_parallel=True)
            torch.distributed.all_reduce(found, group=group)
        _tell_all_stages(found)
        return found[0] / found[1]


def validation_loss(losses: dict[str, Any] | None) -> float:
    """Return the loss that Bridge's evaluation found, which it returns on the last pipeline stage only.

    A collective: every rank must call it.
    """
    given = 0.0 if not losses else float(losses[LOSS])
    found = torch.tensor(given, dtype=torch.float32, device=torch.cuda.current_device())
    _tell_all_stages(found)
    return float(found)


def _tell_all_stages(value: Tensor) -> None:
    """Overwrite a value with that of the last pipeline stage."""
    if parallel_state.get_pipeline_model_parallel_world_size() > 1:
        torch.distributed.broadcast(
            value,
            parallel_state.get_pipeline_model_parallel_last_rank(),
            group=parallel_state.get_pipeline_model_parallel_group(),
        )
