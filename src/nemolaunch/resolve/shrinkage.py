"""What a dev run shrank, from what to what."""

from __future__ import annotations

from typing import Any

from nemolaunch.resolve.values import Resolved

# What to call it, and the field of the architecture or of the job; most telling first
_ARCHITECTURE = {
    "layers": "num_layers",
    "hidden size": "hidden_size",
    "feed-forward size": "ffn_hidden_size",
    "attention heads": "num_attention_heads",
    "experts": "num_moe_experts",
    "expert size": "moe_ffn_hidden_size",
}
_JOB = {
    "tokens per sequence": "seq_length",
    "sequences per step": "global_batch_size",
    "steps": "max_steps",
    "nodes": "num_nodes",
    "processes per node": "num_gpus",
    "TP": "tensor_model_parallel_size",
    "PP": "pipeline_model_parallel_size",
    "CP": "context_parallel_size",
    "EP": "expert_model_parallel_size",
}


def shrinkage(full: Resolved, small: Resolved) -> tuple[str, ...]:
    """Return `layers 16 → 2` and the like for every size of a job that its dev run changes."""
    found = [
        (name, getattr(full.model.architecture, field), getattr(small.model.architecture, field))
        for name, field in _ARCHITECTURE.items()
    ]
    found += [(name, full.job.get(field), small.job.get(field)) for name, field in _JOB.items()]
    return tuple(f"{name} {_word(old)} → {_word(new)}" for name, old, new in found if old and old != new)


def _word(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
