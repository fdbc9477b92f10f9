"""Bridge's own converters, in the fork server's process, on what nemolaunch converted and the reverse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# How tensor parallelism splits the weights of the CPU's layers, which Bridge looks up by the name of their class
SPLITS = {
    "CoreAttention": "column",  # the offsets of attention sinks, one for each head
    "ColumnParallelGroupedLinear": "column",
    "RowParallelGroupedLinear": "row",
    "Norm": "replicated",
}
PUBLISHED = {"backbone.embedding.weight": "backbone.embeddings.weight"}
PROMPT = [0, 17, 300, 5, 42, 42, 7, 199, 23, 8, 64, 128]


def write(models: dict[str, dict[str, Any]]) -> None:
    """Write small random models by folder: the family in transformers, `kind`, and `changes` to its configuration."""
    from nemo2.small_models import write_model
    from safetensors.torch import load_file, save_file

    for folder, model in models.items():
        write_model(Path(folder), model["kind"], **model["changes"])
        if model["kind"] == "nemotron_h":  # published under another name, the only one that Bridge knows
            path = Path(folder) / "model.safetensors"
            found = {PUBLISHED.get(name, name): tensor for name, tensor in load_file(path).items()}
            save_file(found, path, metadata={"format": "pt"})


def judge(folders: list[str]) -> list[float]:
    """Convert the models `source` of some folders with `AutoBridge`.

    It imports each as `theirs`, and exports `ours`, what nemolaunch imported, as `back`. Returns the largest difference
    of the logits of the imports to transformers' for each.
    """
    import torch
    from megatron.bridge import AutoBridge
    from megatron.bridge.models.conversion.param_mapping import AutoMapping
    from megatron.bridge.models.deepseek import deepseek_v3_bridge
    from megatron.bridge.models.glm import glm45_bridge

    for name, how in SPLITS.items():
        AutoMapping.register_module_type(name, how)
    for module in (glm45_bridge, deepseek_v3_bridge):
        module.HAVE_TE = True  # else it has other layers without, which are not those of a GPU
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    found = []
    for folder in map(Path, folders):
        for name in ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN"):
            os.environ.pop(name, None)  # of the model before
        bridge = AutoBridge.from_hf_pretrained(str(folder / "source"))
        theirs = _built(bridge.to_megatron_provider(load_weights=True))
        bridge.save_megatron_model([theirs], str(folder / "theirs"))
        models = [theirs]
        if (folder / "ours").exists():
            models.append(bridge.load_megatron_model(str(folder / "ours"), wrap_with_ddp=False)[0].eval())
            bridge.save_hf_pretrained(models[1:], str(folder / "back"))
        found.append(_largest_difference(folder / "source", *models))
    return found


def export(source: str, ours: str, back: str) -> None:
    """Export the checkpoint `ours` as `back`, with the configuration of the Hugging Face model `source`."""
    import torch
    from megatron.bridge import AutoBridge
    from megatron.bridge.models.conversion.param_mapping import AutoMapping

    for name, how in SPLITS.items():
        AutoMapping.register_module_type(name, how)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    bridge = AutoBridge.from_hf_pretrained(source)
    models = bridge.load_megatron_model(ours, wrap_with_ddp=False)
    bridge.save_hf_pretrained([model.eval() for model in models], back)


def _built(provider: Any) -> Any:
    """Build the model that a provider describes, in float32."""
    import torch
    from megatron.core import parallel_state

    provider.params_dtype, provider.bf16, provider.gradient_accumulation_fusion = torch.float32, False, False
    provider.finalize()
    if not parallel_state.model_parallel_is_initialized():
        provider.initialize_model_parallel(seed=0)
    return provider.provide_distributed_model(wrap_with_ddp=False)[0].eval()


def _largest_difference(folder: Path, *models: Any) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()
    ids = torch.tensor([PROMPT])
    positions = torch.arange(len(PROMPT))[None]
    with torch.no_grad():
        expected = hf(ids).logits
        logits = [model(ids, positions, None)[..., : expected.shape[-1]] for model in models]
    return max(float((found - expected).abs().max()) for found in logits)
