"""Codes of jobs that NeMo and Megatron accept but the checks refuse, each with the reason."""

from __future__ import annotations

from typing import Any

from nemolaunch import catalogue

SILENT: dict[str, str] = {
    "recompute-without-granularity": "ignored: nothing is recomputed, so no memory is saved",
    "offload-layers": "0 layers offload nothing",
    "offload-nothing": "Transformer Engine does not offload weights, or raises on the node if nothing is offloaded",
    "offload-not-switched-on": "ignored: nothing is offloaded",
    "offload-fraction": "any number is accepted; 0 offloads nothing",
    "optimizer-offload-not-switched-on": "ignored: nothing is offloaded",
    "instances-not-sharded": "ignored: every rank holds the whole optimizer",
    "fp8-not-switched-on": "trains without fp8",
    "optimizer-offload-with-fp8": "fails on a GPU, where the offloaded optimizer does not support these weights",
    "fp8-with-fp32": "trains in fp32, without fp8",
    "fp32-with-cp": "raised by Transformer Engine's selection of attention kernels at the first step, on a GPU",
    "fp8-shapes": "raised by Transformer Engine's kernels at the first step, on a GPU",
    "layers-by-pp": "Mamba and Hyena models drop the surplus layers; BERT's layers are only built on a GPU",
    "hyena-by-tp": "its layers cannot be built without the libraries of a GPU machine, which then raise",
    "cp-unsupported": "T5, BERT: every rank trains on the whole sequence; attention windows: raised on a GPU",
    "cp-by-heads": "Mistral 7B: raised by Transformer Engine's attention at the first step, on a GPU",
    "sequence-too-long": "T5 reads beyond its 512 positions, which a GPU reports as an illegal access",
    "ffn-by-tp": "MLPs of Hyena, Mamba, T5 and BERT: raised as for other models once layers are built on a GPU",
    "objective-unsupported": "NeMo does not have this objective; our changes for it are not in these models",
    "mask-token-missing": "our own rule: raised when the first sample is masked",
    "mask-token-unknown": "as above",
    "mask-token-in-use": "masks get the other meaning of the token, e.g. the end of a document",
    "attention-backend": "raised by Transformer Engine's selection of attention kernels at the first step, on a GPU; "
    "or Gemma's caps and windows are lost",
    "cuda-graphs-unsupported": "raised when the first layer is captured, on a GPU; Hyena trains without graphs",
    "cuda-graphs-allocator": "raised when layers are built, which does not happen here; never under its newer name",
    "tp-overlap-ignored": "NeMo's callback turns it off",
    "tp-overlap-impossible": "raised by Transformer Engine's userbuffers, on GPUs",
    "grad-reduce-unsupported": "raised when the gradients of the first step are reduced, also in a rehearsal",
    "param-gather-not-sharded": "ignored: there is nothing to gather",
    "param-gather-with-mxfp8": "updated weights stay in the optimizer: Megatron-LM's loop copies them, NeMo's does not",
    "recompute-modules": "only looked at if recompute is selective",
    "recompute-modules-not-selective": "ignored: these modules are not recomputed",
    "documents-unsupported": "raised at the first step, or documents still depend on each other",
    "documents-as-sequences": "raised, or documents of other samples mixed up, when the first sample is packed",
    "position-ids-not-used": "ignored: positions do not restart",
    "router-loss-without-experts": "ignored: there is no router",
    "ramp-unsupported": "T5 counts steps of the full batch; graphs are captured and replayed on a GPU",
    "vocabulary-by-tp": "T5 and BERT: raised as for other models once embeddings are built on a GPU",
}

# Codes that are silent for some kinds of models only; Mistral 7B and attention windows are kind "window".
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


# Numbers that NeMo never sees. If they are out of range, they are refused with the same code as other flags.
OUR_NUMBERS = ("mlm_probability", "mlm_span_length")


def excused(codes: list[str], values: dict[str, Any]) -> bool:
    """Return whether each of these codes is known to be silent for the job's model."""
    architecture = catalogue.model(values["model_name"]).architecture
    kinds = {architecture.kind, "window" if architecture.window_size is not None else architecture.kind}
    return all(code in SILENT and (code not in ONLY_FOR or kinds & set(ONLY_FOR[code])) for code in codes)
