"""Rules that Megatron applies between model construction and the first step, checked by calling its functions."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any


def place(strategy: Any, world_size: int, rank: int = 0) -> None:
    """Call `initialize_model_parallel` as NeMo does, for one rank of a world of fake processes."""
    import torch
    from megatron.core import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=strategy.tensor_model_parallel_size,
        pipeline_model_parallel_size=strategy.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=strategy.virtual_pipeline_model_parallel_size,
        context_parallel_size=strategy.context_parallel_size,
        expert_model_parallel_size=strategy.expert_model_parallel_size,
        expert_tensor_parallel_size=strategy.expert_tensor_parallel_size,
        num_distributed_optimizer_instances=strategy.num_distributed_optimizer_instances,
        create_gloo_process_groups=False,
    )


def count_microbatches(values: dict[str, Any]) -> list[int]:
    """Run Megatron's calculators, which assert what a batch must be divisible by. Returns the numbers of micro batches.

    Those of a ramp are asked for as Megatron-LM does: its check of divisibility is optional.
    """
    from megatron.core import parallel_state
    from megatron.core.num_microbatches_calculator import (
        ConstantNumMicroBatchesCalculator,
        RampupBatchsizeNumMicroBatchesCalculator,
    )

    replicas = parallel_state.get_data_parallel_world_size()
    sizes = values["global_batch_size"], values["micro_batch_size"], replicas, False, 1
    counts = [ConstantNumMicroBatchesCalculator(*sizes).get()]
    if values.get("rampup_batch_size") is not None:
        start, increment, samples = map(int, values["rampup_batch_size"].split(":"))
        calculator = RampupBatchsizeNumMicroBatchesCalculator(*sizes, start, increment, samples)
        for consumed in range(0, samples + 1, max(1, samples // 1000)):
            calculator.update(consumed, consistency_check=True)
            counts.append(calculator.get())
    return list(dict.fromkeys(counts))


def wrap_optimizer(config: Any) -> None:
    """Construct the distributed optimizer, which first checks the type of the wrapped optimizer."""
    import torch
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    if not config.use_distributed_optimizer:
        return
    kinds = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}
    inner = kinds[config.optimizer]([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    chunks = [SimpleNamespace(ddp_config=SimpleNamespace(use_megatron_fsdp=True))]  # ends after the assertion
    DistributedOptimizer(inner, config, None, None, chunks, {}, None, None, 0, 0)


def follow_schedule(values: dict[str, Any]) -> None:
    """Compute the learning rate at the steps where its formula changes."""
    import torch
    from nemo.core.optim.lr_scheduler import CosineAnnealing

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=values["lr"])
    schedule = CosineAnnealing(
        optimizer,
        max_steps=values["max_steps"],
        warmup_steps=values["warmup_steps"],
        constant_steps=values["constant_steps"],
        min_lr=values["min_lr"],
    )
    schedule._get_lr_called_within_step = True
    last = values["max_steps"]
    for step in {0, 1, values["warmup_steps"], values["warmup_steps"] + 1, last - 1, last}:
        schedule.last_epoch = max(0, min(step, last))
        schedule.get_lr()


def cut_sequence(values: dict[str, Any], config: Any) -> None:
    """Split a batch for a context parallel rank, then for a tensor parallel rank."""
    import torch
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.mappings import _split_along_first_dim
    from megatron.core.utils import get_batch_on_this_cp_rank

    batch = get_batch_on_this_cp_rank({"tokens": torch.zeros(1, values["seq_length"], dtype=torch.int8)})
    if config.sequence_parallel:
        _split_along_first_dim(batch["tokens"].T, parallel_state.get_tensor_model_parallel_group())


class _Reached(Exception):
    """Raised once the schedule has passed its checks."""


def enter_schedule(config: Any, values: dict[str, Any]) -> None:
    """Enter the interleaved schedule, which checks the number of microbatches before it queries the model type."""
    import torch
    from megatron.core.pipeline_parallel import schedules

    class Chunk(torch.nn.Module):
        pass

    num_chunks = config.virtual_pipeline_model_parallel_size
    chunks = [Chunk() for _ in range(num_chunks)]
    for chunk in chunks:
        chunk.config = config
    ask = schedules.get_model_type

    def reached(model: Any) -> Any:
        raise _Reached

    schedules.get_model_type = reached
    try:
        for num_microbatches in count_microbatches(values):
            with contextlib.suppress(_Reached):
                schedules.forward_backward_pipelining_with_interleaving(
                    forward_step_func=None,
                    data_iterator=[None] * num_chunks,
                    model=chunks,
                    num_microbatches=num_microbatches,
                    seq_length=values["seq_length"],
                    micro_batch_size=values["micro_batch_size"],
                )
    finally:
        schedules.get_model_type = ask
