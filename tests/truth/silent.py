"""Codes that refuse jobs which NeMo and Megatron take, each with the reason why we do not."""

from __future__ import annotations

from typing import Any

from nemolaunch import catalogue

SILENT: dict[str, str] = {
    "recompute-without-granularity": "ignored: nothing is recomputed, and the memory it should save is used",
    "offload-layers": "0 layers are offloaded, which is nothing",
    "offload-nothing": "Transformer Engine offloads no weights, or raises on the node for nothing at all",
    "offload-not-switched-on": "ignored: nothing is offloaded",
    "offload-fraction": "any number is taken; 0 offloads nothing",
    "optimizer-offload-not-switched-on": "ignored: nothing is offloaded",
    "instances-not-sharded": "ignored: every rank has all of the optimizer",
    "fp8-not-switched-on": "trains without fp8",
    "optimizer-offload-with-fp8": "fails on a GPU, where the offloaded optimizer finds weights it cannot hold",
    "fp8-with-fp32": "trains in fp32, without fp8",
    "fp32-with-cp": "raised by Transformer Engine's choice of attention at the first step, on a GPU",
    "fp8-shapes": "raised by Transformer Engine's kernels at the first step, on a GPU",
    "layers-by-pp": "Mamba and Hyena models leave out the layers that are over; BERT's are built on a GPU only",
    "hyena-by-tp": "its layers cannot be built without a GPU's libraries, which then refuse",
    "cp-unsupported": "T5, BERT: every rank trains on the whole sequence; attention windows: raised on a GPU",
    "cp-by-heads": "Mistral 7B: raised by Transformer Engine's attention at the first step, on a GPU",
    "sequence-too-long": "T5 reads beyond its 512 positions, which a GPU reports as an illegal access",
    "ffn-by-tp": "Hyena's and Mamba's MLP, T5 and BERT: as with other models, once layers are built on a GPU",
    "objective-unsupported": "NeMo has no such objective; what we change for it is not in these models",
    "mask-token-missing": "a rule of our own: raised when the first sample is masked",
    "mask-token-unknown": "as above",
    "mask-token-in-use": "masks become what else the token means: the end of a document, say",
    "attention-backend": "raised by Transformer Engine's choice of attention at the first step, on a GPU; or Gemma's "
    "scores and windows are lost",
    "cuda-graphs-unsupported": "raised when the first layer is captured, on a GPU; Hyena trains without",
    "cuda-graphs-allocator": "raised when layers are built, which are not here; by its newer name, never",
    "tp-overlap-ignored": "NeMo's callback turns it off",
    "tp-overlap-impossible": "raised by Transformer Engine's userbuffers, on GPUs",
    "grad-reduce-unsupported": "raised when the first step's gradients are reduced; a rehearsal shows it",
    "param-gather-not-sharded": "ignored: there is nothing to gather",
    "param-gather-with-mxfp8": "updated weights stay in the optimizer: Megatron-LM's loop copies them, NeMo's does not",
    "vocabulary-by-tp": "T5 and BERT: as with other models, once embeddings are built on a GPU",
}

# Those of them that are silent for some kinds of models only; Mistral 7B and attention windows are kind "window".
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "layers-by-pp": ("mamba", "hyena", "bert"),
    "hyena-by-tp": ("hyena",),
    "cp-unsupported": ("t5", "bert", "window"),
    "cp-by-heads": ("window",),
    "sequence-too-long": ("t5",),
    "ffn-by-tp": ("mamba", "hyena", "t5", "bert"),
    "cuda-graphs-allocator": ("mamba", "hyena", "t5", "bert"),
    "vocabulary-by-tp": ("t5", "bert"),
}


# What NeMo never sees. Out of its range it is refused as other flags are, with the same code.
OUR_NUMBERS = ("mlm_probability", "mlm_span_length")


def excused(codes: list[str], values: dict[str, Any]) -> bool:
    """Whether each of these codes is known to be silent for the job's model."""
    architecture = catalogue.model(values["model_name"]).architecture
    kinds = {architecture.kind, "window" if architecture.window_size is not None else architecture.kind}
    return all(code in SILENT and (code not in ONLY_FOR or kinds & set(ONLY_FOR[code])) for code in codes)
