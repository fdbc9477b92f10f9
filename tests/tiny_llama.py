"""A small Hugging Face Llama with the sample tokenizer, and real text to evaluate it on."""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def write_llama(folder: Path, *, seed: int = 1, extra_rows: int = 0, **changes: object) -> Path:
    """Write a model with two layers of random weights; `extra_rows` of its vocabulary belong to no token."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "tokenizer")
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer) + extra_rows,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_texts(path: Path, num_characters: int) -> Path:
    """Write the beginnings of two real documents, English and Chinese, as JSON Lines."""
    with open(path, "w", encoding="utf-8") as out:
        for name in ("en.jsonl", "zh_hant.jsonl"):
            first = (EXAMPLES / "corpus" / name).read_text(encoding="utf-8").splitlines()[0]
            out.write(
                json.dumps({"text": json.loads(first)["text"][:num_characters]}, ensure_ascii=False) + "\n"
            )
    return path
