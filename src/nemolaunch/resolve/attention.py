"""Attention kernels: which ones a job uses, what they support, and whether they keep scores.

The rules are Transformer Engine's: `get_attention_backend` of `pytorch/attention/dot_product_attention/utils.py`
and `nvte_get_fused_attn_backend` of `common/fused_attn/fused_attn.cpp`, release 2.9 with cuDNN 9.11 or newer.
"""

from __future__ import annotations

import dataclasses

from nemolaunch.catalogue import Architecture, ModelSpec, bridge_models
from nemolaunch.job import Job

# Values that Megatron requires of these variables for each backend (`LanguageModule._set_attention_backend`)
VARIABLES = {
    "auto": {"NVTE_FLASH_ATTN": "1", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "1"},
    "flash": {"NVTE_FLASH_ATTN": "1", "NVTE_FUSED_ATTN": "0", "NVTE_UNFUSED_ATTN": "0"},
    "fused": {"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "0"},
    "unfused": {"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "0", "NVTE_UNFUSED_ATTN": "1"},
    "local": {"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "0", "NVTE_UNFUSED_ATTN": "0"},
}
NAMES = {"flash": "FlashAttention", "fused": "cuDNN's fused attention"}
HOPPER = (9, 0)
LATENT_WIDTHS = (192, 128)  # the only pair of different head widths that kernels support


def backend_of(job: Job, model: ModelSpec) -> str:
    """Return the requested backend, else the recipe's."""
    return job.speed.attention_backend or model.recipe.attention_backend


def has_attention(a: Architecture) -> bool:
    """Return whether any layer has attention."""
    return a.hybrid_override_pattern is None or "*" in a.hybrid_override_pattern


def has_own(model: ModelSpec) -> bool:
    """Return whether the model has its own attention without backends.

    Gemma 2 caps scores (`gemma2_layer_spec`); Bridge's Gemma 4 without experts has no layers of Transformer Engine.
    """
    return model.recipe.model_class == "Gemma2Model" or bridge_models.is_plain_gemma4(model)


def head_widths(a: Architecture) -> tuple[int, int]:
    """Return the channels of a head's queries and keys, and of its values."""
    if not a.multi_latent_attention:
        return (max(a.kv_channels, a.global_kv_channels or 0),) * 2
    return (a.qk_head_dim or 0) + (a.qk_pos_emb_head_dim or 0), a.v_head_dim or 0


def refusal(
    backend: str, job: Job, model: ModelSpec, capability: tuple[int, int] | None = None, *, flash: bool = True
) -> str | None:
    """Return why these kernels do not support the job's attention, as a clause; None if they do.

    `auto` is refused if all kernels are.

    Args:
        backend: name of the kernels.
        job: the job.
        model: the job's model.
        capability: compute capability of the GPU; None if unknown.
        flash: whether FlashAttention is installed.
    """
    if backend == "auto":
        reasons = [refusal(b, job, model, capability, flash=flash) for b in ("flash", "fused", "unfused")]
        return None if None in reasons else "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    parts = job.parallelism.context_parallel_size
    if backend in ("unfused", "local"):
        if job.data.reset_attention_mask:
            return "--reset-attention-mask needs FlashAttention or cuDNN's fused attention"
        if parts > 1:
            return "context parallelism needs FlashAttention or cuDNN's fused attention"
        return _not_local(model) if backend == "local" else None
    if backend == "flash" and not flash:
        return "FlashAttention is not installed here"
    if job.batch.precision == "fp32":
        return f"{NAMES[backend]} supports 16-bit formats only"
    packed = job.data.reset_attention_mask
    if backend == "fused" and packed and capability is not None and capability < HOPPER:
        return f"{NAMES[backend]} does not support the packed sequences of --reset-attention-mask on this GPU"
    return _width(backend, model.architecture, capability)


def _width(backend: str, a: Architecture, capability: tuple[int, int] | None) -> str | None:
    query, value = head_widths(a)
    shown = f"{query}" if query == value else f"{query} and {value}"
    what = f"{NAMES[backend]} does not support heads of {shown} channels"
    if query % 8 or value % 8 or query > 256:
        return what
    if query != value:
        least = HOPPER if (query, value) == LATENT_WIDTHS else None
        fits = least is not None and (capability is None or capability >= least)
        # among FlashAttention releases only version 3, for Hopper, supports it
        if not fits or (backend == "flash" and capability not in (None, HOPPER)):
            return what + ("" if capability is None else " on this GPU")
    elif backend == "fused" and query > 128 and capability not in (None, HOPPER):
        return f"{what} on this GPU"
    return None


def _not_local(model: ModelSpec) -> str | None:
    """Return why NeMo does not use Megatron's attention in this model, or not correctly; None if it does.

    See `GPTConfig.configure_model`.
    """
    a, recipe = model.architecture, model.recipe
    if recipe.model_class == "Gemma2Model":
        return "the scores of Gemma 2 would no longer be capped"
    if recipe.model_class == "Gemma3Model":
        return "the local layers of Gemma 3 would lose their window"
    one_by_one = a.multi_latent_attention or recipe.name.startswith("llama4")
    if a.kind != "gpt" or one_by_one:
        return f"NeMo does not use Megatron's attention in {model.name} and turns all other kernels off"
    return None


def keeps_scores(job: Job, model: ModelSpec) -> bool:
    """Return whether a GPU keeps the scores of all token pairs for the backward pass."""
    if not has_attention(model.architecture):
        return False
    backend = backend_of(job, model)
    if has_own(model) or backend in ("unfused", "local"):
        return True
    return backend == "auto" and all(refusal(b, job, model) for b in ("flash", "fused"))


def windows_keep_scores(job: Job, model: ModelSpec) -> bool:
    """Return whether layers with a window keep scores where the others do, whose heads may be wider (Gemma 4)."""
    a = dataclasses.replace(model.architecture, global_kv_channels=None)
    return keeps_scores(job, dataclasses.replace(model, architecture=a))


def softmax_values(job: Job, model: ModelSpec, heads: int, length: int) -> tuple[int, ...]:
    """Return the bytes of each value that is kept per score, for `heads` heads per rank, if scores are kept.

    Softmax keeps its result. If Transformer Engine's kernel does not support the shape
    (`FusedScaleMaskSoftmax.is_kernel_available`), it computes and keeps the result in fp32, and a 16-bit copy is kept
    for the product with the values. NeMo lets Megatron's softmax compute in 16 bits
    (`GPTConfig.attention_softmax_in_fp32`). Gemma 2 also keeps the capped scores.
    """
    width = 4 if job.batch.precision == "fp32" else 2
    kept: tuple[int, ...] = (width,)
    if model.recipe.model_class == "Gemma2Model":
        kept = (width, width)
    elif has_own(model):
        pass
    elif backend_of(job, model) != "local" and width == 2:
        divides = length % 8 == 0 and heads * job.batch.micro_batch_size % 4 == 0
        kept = (2,) if 16 < length < 16384 and divides else (4, 2)
    return (*kept, 1, width) if model.architecture.attention_dropout else kept
