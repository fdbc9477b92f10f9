"""Limits that apply to some model families only, each with the place in NeMo or Megatron that imposes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nemolaunch.arithmetic import mixers
from nemolaunch.arithmetic.pipeline import PipelineSplit, pipeline_split
from nemolaunch.catalogue import Architecture
from nemolaunch.catalogue.bridge_models import is_plain_gemma4
from nemolaunch.resolve import Resolved


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """Limits of a model family. Each reason is a clause that says why; None if there is no such limit.

    Attributes:
        no_pipeline: why it does not support pipeline parallelism.
        no_virtual_pipeline: why it does not support virtual pipeline stages.
        no_context_parallel: why it does not support context parallelism.
        tensor_parts: additional parts split by tensor parallelism, as in `parallel.tensor_parts`.
        mamba_heads: heads and groups of Mamba layers, which are split over context parallel ranks.
        exchanged_heads: key/value heads, if context parallel ranks exchange sequence shards for heads.
        most_seq_length: number of positions the model is built for, if it is fixed.
        causal_only: why its layers cannot attend to both sides, as masked language modelling requires.
    """

    no_pipeline: str | None = None
    no_virtual_pipeline: str | None = None
    no_context_parallel: str | None = None
    tensor_parts: dict[str, tuple[int, str]] = field(default_factory=dict)
    mamba_heads: tuple[int, int] | None = None
    exchanged_heads: int | None = None
    most_seq_length: int | None = None
    causal_only: str | None = None

    @property
    def cp_parts(self) -> str:
        """Description of what `valid_cp` divides."""
        if self.mamba_heads:
            return "the {} heads and {} groups of Mamba layers".format(*self.mamba_heads)
        return f"the {self.exchanged_heads} key/value heads"

    @property
    def most_cp(self) -> int:
        """Upper bound of the context parallel size, if heads limit it."""
        return self.mamba_heads[0] if self.mamba_heads else self.exchanged_heads or 1

    def valid_cp(self, tp: int, cp: int) -> bool:
        """Return whether the heads of a tensor parallel rank divide over context parallel ranks.

        megatron.core.ssm.mamba_context_parallel: heads by TP·CP; groups by CP or CP by groups. Transformer Engine
        with `cp_comm_type="a2a"`: key/value heads by TP·CP.
        """
        if cp == 1:
            return True
        if self.exchanged_heads:
            return self.exchanged_heads % tp != 0 or self.exchanged_heads // tp % cp == 0
        if self.mamba_heads is None:
            return True
        heads, groups = self.mamba_heads
        if heads % tp or groups % tp:
            return True  # reported by the tensor rules
        per_rank = groups // tp
        return heads // tp % cp == 0 and (cp % per_rank == 0 if per_rank < cp else per_rank % cp == 0)


# T5Config.max_position_embeddings in nemo.collections.llm.t5.model.t5; a job cannot set this field
_T5_POSITIONS = 512


def limits_of(resolved: Resolved) -> ModelLimits:
    """Return the limits of the job's model."""
    a, name = resolved.model.architecture, resolved.model.recipe.model_class
    if a.kind == "mamba":
        return _mamba(a)
    if a.kind == "hyena":
        return _hyena(a)
    if a.kind == "t5":
        return ModelLimits(
            no_pipeline="NeMo cannot place its encoder (encoder_pipeline_model_parallel_size)",
            no_virtual_pipeline="T5Config.configure_model rejects it",
            no_context_parallel="its batches are not split along the sequence (t5.py, t5_forward_step)",
            most_seq_length=_T5_POSITIONS,
            causal_only="its decoder generates from left to right, and its recipe already masks spans",
        )
    if a.kind == "bert":
        return ModelLimits(no_context_parallel="its padding mask is not split along the sequence")
    if name == "Gemma2Model":
        return ModelLimits(
            no_virtual_pipeline="Gemma2Model.configure_model does not take a virtual stage",
            no_context_parallel="Gemma2DotProductAttention rejects it",
            causal_only="Gemma2DotProductAttention is causal",
        )
    if name == "Gemma3Model":
        return ModelLimits(
            no_virtual_pipeline="Gemma3Config.configure_model rejects it",
            no_context_parallel="Gemma3Config.configure_model rejects it",
            causal_only="Gemma3SelfAttention is causal",
        )
    if name == "Gemma4ForCausalLM":
        return _gemma4(resolved)
    if a.window_size is not None:
        looks_back = "its attention window only looks back"
        if name == "MistralModel":
            return ModelLimits(exchanged_heads=a.num_query_groups, causal_only=looks_back)
        return ModelLimits(
            no_context_parallel="its attention window is not split along the sequence", causal_only=looks_back
        )
    if a.linear_attention_freq:
        return ModelLimits(
            exchanged_heads=a.linear_num_key_heads,
            tensor_parts={
                "delta-by-tp": (a.known("linear_num_key_heads"), "{}, the key heads of its linear attention")
            },
            causal_only="its gated delta nets run from left to right",
        )
    return ModelLimits(causal_only=_one_sided_layers(resolved))


def _one_sided_layers(resolved: Resolved) -> str | None:
    """Return why the model's layers mask causally, if NeMo builds them in a special way; else None."""
    a = resolved.model.architecture
    if a.multi_latent_attention:
        return "NeMo's multi-latent attention is causal"
    if a.mtp_num_layers:
        return "it predicts additional tokens from the preceding ones"
    if resolved.model.recipe.name.startswith("llama4"):
        return "its chunked attention is causal (llama4_layer_spec)"
    return None


def _mamba(a: Architecture) -> ModelLimits:
    heads, groups = mixers.mamba_heads(a), a.mamba_num_groups
    parts = {
        "mamba-by-tp": (
            math.gcd(heads, groups),
            "{}, the greatest common divisor of the Mamba heads and groups",
        )
    }
    return ModelLimits(
        no_virtual_pipeline="SSMConfig.configure_model rejects it",
        tensor_parts=parts,
        mamba_heads=(heads, groups),
        causal_only="its state space layers run from left to right",
    )


def _gemma4(resolved: Resolved) -> ModelLimits:
    groups = resolved.model.architecture.num_global_query_groups
    plain = is_plain_gemma4(resolved.model)
    what = "the {} key/value heads of layers without a window"
    return ModelLimits(
        no_pipeline="Bridge's Gemma4DenseProvider builds it as one stage" if plain else None,
        no_virtual_pipeline="no run of it with virtual stages has been tried",
        no_context_parallel="its attention window is not split along the sequence",
        tensor_parts={"global-groups-by-tp": (groups, what)} if groups else {},
        causal_only="its attention is causal (modeling_gemma4.py)",
    )


def _hyena(a: Architecture) -> ModelLimits:
    groups = [g for g in (a.num_groups_hyena, a.num_groups_hyena_medium, a.num_groups_hyena_short) if g]
    common = math.gcd(a.hidden_size, *groups)
    parts = {"hyena-by-tp": (common, "{}, the greatest common divisor of the Hyena channels and groups")}
    return ModelLimits(
        no_virtual_pipeline="HyenaConfig.configure_model rejects it",
        tensor_parts=parts,
        causal_only="its convolutions only look back",
    )


def split_of(resolved: Resolved, pp: int, vpp: int | None) -> PipelineSplit | None:
    """Return how the model's layers are split over that many stages; None if they cannot be."""
    if pp > 1 and limits_of(resolved).no_pipeline:
        return None
    recipe = resolved.model.recipe
    return pipeline_split(resolved.model.architecture, pp, vpp, recipe.pipeline_model_parallel_size)


def splits(resolved: Resolved, pp: int, vpp: int | None) -> bool:
    """Return whether the layers can be split over that many stages."""
    return split_of(resolved, pp, vpp) is not None
