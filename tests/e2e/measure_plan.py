"""What the fork server's ranks run to weigh a training: its buffers, optimizer state, kept activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class KeptActivations:
    """Bytes that autograd keeps for the backward pass, each storage once, parameters left out; the peak."""

    def __init__(self, parameters: list[Any]) -> None:
        self._parameters = {p.untyped_storage().data_ptr() for p in parameters}
        self._uses: dict[int, int] = {}
        self.now = self.peak = 0

    def pack(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._parameters or tensor.numel() == 0:
            return tensor
        return _Kept(self, tensor)

    def add(self, storage: Any) -> None:
        key = storage.data_ptr()
        if key not in self._uses:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self._uses[key] = self._uses.get(key, 0) + 1

    def drop(self, key: int, size: int) -> None:
        self._uses[key] -= 1
        if not self._uses[key]:
            del self._uses[key]
            self.now -= size


class _Kept:
    """A tensor that autograd holds on to; counted until autograd lets it go."""

    def __init__(self, counter: KeptActivations, tensor: Any) -> None:
        self.tensor, self._counter = tensor, counter
        storage = tensor.untyped_storage()
        self._key, self._size = storage.data_ptr(), storage.nbytes()
        counter.add(storage)

    def __del__(self) -> None:
        self._counter.drop(self._key, self._size)


def unpack(kept: Any) -> Any:
    return kept.tensor if isinstance(kept, _Kept) else kept


def weigh(plan_file: str) -> dict[str, int]:
    """Train the plan for its steps; returns bytes on this rank, and its pipeline stage."""
    import torch
    from lightning.pytorch import Callback
    from megatron.core import parallel_state

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    found: dict[str, int] = {}

    class Scale(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            chunks = trainer.strategy.megatron_parallel
            self.counter = KeptActivations([p for chunk in chunks for p in chunk.parameters()])
            self.hooks = torch.autograd.graph.saved_tensors_hooks(self.counter.pack, unpack)
            self.hooks.__enter__()

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.hooks.__exit__()
            found.update(_buffers(trainer.strategy.megatron_parallel))
            found["optimizer"] = sum(_state_bytes(o) for o in trainer.strategy.optimizers)
            found["activations"] = self.counter.peak
            found["stage"] = parallel_state.get_pipeline_model_parallel_rank()

    run_plan(Plan.load(Path(plan_file)), callbacks=(Scale(),))
    return found


def _buffers(chunks: Any) -> dict[str, int]:
    parameters = gradients = elements = 0
    for chunk in chunks:
        module = chunk.module
        for buffer in (*module.buffers, *module.expert_parallel_buffers):
            gradients += buffer.grad_data.nbytes
            parameters += buffer.param_data.nbytes if buffer.param_data is not None else 0
        elements += sum(p.numel() for p in module.parameters())
        if all(b.param_data is None for b in module.buffers):
            parameters += sum(p.nbytes for p in module.parameters())
    return {"parameters": parameters, "gradients": gradients, "elements": elements}


def _state_bytes(optimizer: Any) -> int:
    """Moments, and fp32 weights that are not the model's own."""
    import torch

    megatron = optimizer.mcore_optimizer
    parts = getattr(megatron, "chained_optimizers", [megatron])
    size = 0
    for part in parts:
        own = {p.untyped_storage().data_ptr() for group in _model_groups(part) for p in group}
        for group in part.optimizer.param_groups:
            size += sum(p.nbytes for p in group["params"] if p.untyped_storage().data_ptr() not in own)
        for state in part.optimizer.state.values():
            size += sum(v.nbytes for v in state.values() if torch.is_tensor(v) and v.numel() > 1)
    return size


def _model_groups(part: Any) -> list[list[Any]]:
    names = ("model_float16_groups", "model_fp32_groups", "float16_groups", "fp32_from_fp32_groups")
    return [group for name in names for group in getattr(part, name, [])]
