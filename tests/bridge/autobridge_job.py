"""Bridge's own converters, in the fork server's process, on what nemolaunch converted and the reverse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# How tensor parallelism splits the weights of the CPU's layers, which Bridge looks up by the name of their class
SPLITS = {
    "ColumnParallelGroupedLinear": "column",
    "RowParallelGroupedLinear": "row",
    "Norm": "replicated",
}


def judge(hf: str, theirs: str, ours: str, back: str) -> dict[str, Any]:
    """`AutoBridge`'s import of `hf` as `theirs`, its export of `ours` as `back`, and the logits of all three models."""
    import torch
    from megatron.bridge import AutoBridge
    from megatron.bridge.models.conversion.param_mapping import AutoMapping

    for name, how in SPLITS.items():
        AutoMapping.register_module_type(name, how)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    bridge = AutoBridge.from_hf_pretrained(hf)
    provider = bridge.to_megatron_provider(load_weights=True)
    model = _built(provider)
    bridge.save_megatron_model([model], theirs)
    loaded = _built(bridge.to_megatron_provider(load_weights=False))
    _load(loaded, ours)
    bridge.save_hf_pretrained([loaded], back)
    return {"logits": _largest_difference(_hf(hf), model, loaded)}


def _built(provider: Any) -> Any:
    """Build the model that a provider describes, in float32."""
    import torch
    from megatron.core import parallel_state

    provider.params_dtype, provider.bf16, provider.gradient_accumulation_fusion = torch.float32, False, False
    provider.finalize()
    if not parallel_state.model_parallel_is_initialized():
        provider.initialize_model_parallel(seed=0)
    return provider.provide_distributed_model(wrap_with_ddp=False)[0].eval()


def _load(model: Any, checkpoint: str) -> None:
    """Load a checkpoint's weights into a model, as Bridge does."""
    from megatron.bridge.training.model_load_save import load_megatron_model  # noqa: F401
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.validation import StrictHandling

    folder = next(Path(checkpoint).glob("iter_*"))
    state = {"model": model.sharded_state_dict()}
    found = dist_checkpointing.load(state, str(folder), strict=StrictHandling.RAISE_ALL)
    model.load_state_dict(found["model"])


def _hf(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()


def _largest_difference(hf: Any, *models: Any) -> float:
    """Return the largest difference of the logits of Bridge's models to transformers'."""
    import torch

    ids = torch.tensor([[0, 17, 300, 5, 42, 42, 7, 199, 23, 8, 64, 128]])
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        expected = hf(ids).logits
        logits = [model(ids, positions, None)[..., : expected.shape[-1]] for model in models]
    return max(float((found - expected).abs().max()) for found in logits)
