"""Small Hugging Face models with random weights, and a tokenizer trained on a few lines, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "她在清晨的市場買了兩條魚和一把青菜。",
    "A checkpoint that nobody can load is only a large file.",
    "天下大勢，分久必合，合久必分。",
]


def write_tokenizer(folder: Path, vocab_size: int = 384) -> int:
    """A byte-level BPE tokenizer as a Hugging Face folder; returns how many tokens it really has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")
    fast.save_pretrained(folder)
    return len(fast)


def write_model(folder: Path, kind: str, dtype: str = "float32", **changes: Any) -> None:
    """A random model of the transformers family `kind` ("llama"), with the small tokenizer, as a folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    vocab_size = write_tokenizer(folder)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "vocab_size": vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **{**sizes, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # their starting values would hide a mix-up
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
    model.save_pretrained(folder)
