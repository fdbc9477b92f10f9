"""Codes that refuse jobs which NeMo and Megatron take, each with the reason why we do not."""

from __future__ import annotations

SILENT: dict[str, str] = {
    "recompute-without-granularity": "ignored: nothing is recomputed, and the memory it should save is used",
    "offload-layers": "0 layers are offloaded, which is nothing",
    "offload-nothing": "Transformer Engine offloads no weights, or raises on the node for nothing at all",
    "offload-not-switched-on": "ignored: nothing is offloaded",
    "offload-fraction": "any number is taken; 0 offloads nothing",
    "optimizer-offload-not-switched-on": "ignored: nothing is offloaded",
    "fp8-with-fp32": "trains in fp32, without fp8",
    "fp32-with-cp": "raised by Transformer Engine's choice of attention at the first step, on a GPU",
    "fp8-shapes": "raised by Transformer Engine's kernels at the first step, on a GPU",
    "layers-by-pp": "Mamba and Hyena models leave out the layers that are over",
    "hyena-by-tp": "its layers cannot be built without a GPU's libraries, which then refuse",
    "cp-unsupported": "T5, BERT: every rank trains on the whole sequence; attention windows: raised on a GPU",
    "cp-by-heads": "Mistral 7B: raised by Transformer Engine's attention at the first step, on a GPU",
    "sequence-too-long": "T5 reads beyond its 512 positions, which a GPU reports as an illegal access",
    "ffn-by-tp": "Hyena's and Mamba's MLP, T5 and BERT: as with other models, once layers are built on a GPU",
    "vocabulary-by-tp": "T5 and BERT: as with other models, once embeddings are built on a GPU",
}
