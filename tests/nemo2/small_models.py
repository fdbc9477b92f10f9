"""Small Hugging Face models with random weights, and a tokenizer trained on a few lines, in folders."""

from __future__ import annotations

from pathlib import Path

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
