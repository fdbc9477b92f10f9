"""What only some kinds of models can do, each with the place in NeMo or Megatron that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nemolaunch.arithmetic import mixers
from nemolaunch.arithmetic.pipeline import PipelineSplit, pipeline_split
from nemolaunch.catalogue import Architecture
from nemolaunch.resolve import Resolved


@dataclass(frozen=True, kw_only=True)
class Family:
    """Limits of a kind of model; a reason is a clause that says why, None where there is no limit.

    Attributes:
        tensor_parts: further things shared out by tensor parallelism, as in `parallel.tensor_parts`.
        mamba_heads: heads and groups of Mamba layers, which context parallel ranks share.
        exchanged_heads: key/value heads, where context parallel ranks exchange sequence for heads.
        most_seq_length: positions the model is built for, where it is fixed.
        causal_only: why its layers cannot attend to both sides, as masked language modelling needs.
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
        """What `valid_cp` divides."""
        if self.mamba_heads:
            return "the {} heads and {} groups of Mamba layers".format(*self.mamba_heads)
        return f"the {self.exchanged_heads} key/value heads"

    @property
    def most_cp(self) -> int:
        """No context parallel size above it can be valid, where heads limit it."""
        return self.mamba_heads[0] if self.mamba_heads else self.exchanged_heads or 1

    def valid_cp(self, tp: int, cp: int) -> bool:
        """Whether heads of a tensor parallel rank divide over context parallel ranks.

        megatron.core.ssm.mamba_context_parallel: heads by TP·CP; groups either way. Transformer Engine with
        `cp_comm_type="a2a"`: key/value heads by TP·CP.
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


# T5Config.max_position_embeddings of nemo.collections.llm.t5.model.t5; not a field that a job sets
_T5_POSITIONS = 512


def family(resolved: Resolved) -> Family:
    """The limits of the job's model."""
    a, name = resolved.model.architecture, resolved.model.recipe.model_class
    if a.kind == "mamba":
        return _mamba(a)
    if a.kind == "hyena":
        return _hyena(a)
    if a.kind == "t5":
        return Family(
            no_pipeline="NeMo cannot place its encoder (encoder_pipeline_model_parallel_size)",
            no_virtual_pipeline="T5Config.configure_model refuses it",
            no_context_parallel="its batches are not cut along the sequence (t5.py, t5_forward_step)",
            most_seq_length=_T5_POSITIONS,
            causal_only="its decoder writes from left to right; its own recipe masks spans already",
        )
    if a.kind == "bert":
        return Family(no_context_parallel="its padding mask is not cut along the sequence")
    if name == "Gemma2Model":
        return Family(
            no_virtual_pipeline="Gemma2Model.configure_model takes no virtual stage",
            no_context_parallel="Gemma2DotProductAttention refuses it",
            causal_only="Gemma2DotProductAttention is causal",
        )
    if name == "Gemma3Model":
        return Family(
            no_virtual_pipeline="Gemma3Config.configure_model refuses it",
            no_context_parallel="Gemma3Config.configure_model refuses it",
            causal_only="Gemma3SelfAttention is causal",
        )
    if a.window_size is not None:
        looks_back = "its attention window looks back only"
        if name == "MistralModel":
            return Family(exchanged_heads=a.num_query_groups, causal_only=looks_back)
        return Family(
            no_context_parallel="its attention window is not cut along the sequence", causal_only=looks_back
        )
    return Family(causal_only=_one_sided_layers(resolved))


def _one_sided_layers(resolved: Resolved) -> str | None:
    """Layers that NeMo builds by ways of their own, which mask causally."""
    a = resolved.model.architecture
    if a.multi_latent_attention:
        return "NeMo's multi-latent attention is causal"
    if a.mtp_num_layers:
        return "it predicts further tokens from those before"
    if resolved.model.recipe.name.startswith("llama4"):
        return "its attention in chunks is causal (llama4_layer_spec)"
    return None


def _mamba(a: Architecture) -> Family:
    heads, groups = mixers.mamba_heads(a), a.mamba_num_groups
    parts = {"mamba-by-tp": (math.gcd(heads, groups), "(common divisor of) Mamba heads and groups")}
    return Family(
        no_virtual_pipeline="SSMConfig.configure_model refuses it",
        tensor_parts=parts,
        mamba_heads=(heads, groups),
        causal_only="its state space layers read from left to right",
    )


def _hyena(a: Architecture) -> Family:
    groups = [g for g in (a.num_groups_hyena, a.num_groups_hyena_medium, a.num_groups_hyena_short) if g]
    common = math.gcd(a.hidden_size, *groups)
    parts = {"hyena-by-tp": (common, "(common divisor of) Hyena channels and groups")}
    return Family(
        no_virtual_pipeline="HyenaConfig.configure_model refuses it",
        tensor_parts=parts,
        causal_only="its convolutions look back only",
    )


def split_of(resolved: Resolved, pp: int, vpp: int | None) -> PipelineSplit | None:
    """How the model's layers are dealt to that many stages; None where they cannot be."""
    if pp > 1 and family(resolved).no_pipeline:
        return None
    recipe = resolved.model.recipe
    return pipeline_split(resolved.model.architecture, pp, vpp, recipe.pipeline_model_parallel_size)


def splits(resolved: Resolved, pp: int, vpp: int | None) -> bool:
    """Whether the layers can be dealt to that many stages."""
    return split_of(resolved, pp, vpp) is not None
