"""BERT, which NeMo only builds from Transformer Engine's layers."""

from __future__ import annotations

from types import ModuleType

PACKAGE = "nemo.collections.llm.bert.model"


def install() -> None:
    """Give Megatron's BERT the CPU's layers, and the mask of a recent Transformer Engine."""
    import megatron.core.extensions.transformer_engine as extension
    from megatron.core.models.bert import bert_layer_specs, bert_lm_head, bert_model

    from nemolaunch.cpu.norms import Norm

    for name in ("TEDotProductAttention", "TELayerNormColumnParallelLinear", "TERowParallelLinear"):
        setattr(bert_layer_specs, name, getattr(extension, name))
    bert_layer_specs.HAVE_TE = True
    bert_model.is_te_min_version = lambda *args, **kwargs: True
    bert_lm_head.LNImpl = Norm


def complete(module: ModuleType) -> None:
    """Make NeMo's BERT module what it is with Transformer Engine installed, where a class has a different base."""
    from megatron.core.models.bert import bert_layer_specs
    from megatron.core.models.bert.bert_model import BertModel

    module.bert_layer_specs = bert_layer_specs  # type: ignore[attr-defined]
    module.MCoreBert = BertModel  # type: ignore[attr-defined]
    module.MCoreBertModelWrapperWithPostLNSupport.__bases__ = (BertModel,)
