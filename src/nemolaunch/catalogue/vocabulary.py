"""Vocabulary sizes that model families were published with."""

from __future__ import annotations

# Entries of the tokenizer that each family was trained with, by the longest matching prefix of the model's name, else
# of its recipe's.
PUBLISHED = {
    "aixsim": 49152,
    "baichuan2": 125696, "bert": 30522, "chatglm3": 65024,
    "demo-llama": 8192, "deepseek_v2": 102400, "deepseek_v3": 129280,
    "gemma": 256000, "gpt3": 50257, "hyena": 512, "llama2": 32000, "llama3": 128256, "llama4": 202048,
    "mamba2": 50277, "mamba2_8b": 256000, "mamba2_hybrid_8b": 256000, "mistral_7b": 32000,
    "mistral_nemo": 131072, "mistral_small3": 131072, "mixtral": 32000, "nemotron": 256000,
    "nemotronh": 131072, "nemotron_nano": 131072, "phi3": 32064, "qwen": 151936, "starcoder": 49152,
    "t5": 29056,
}  # fmt: skip
DEFAULT = 128256


def published_vocabulary(*names: str) -> int:
    """Return the entries of the tokenizer that a model was published with; the first known name decides."""
    for name in names:
        fitting = [prefix for prefix in PUBLISHED if name.startswith(prefix)]
        if fitting:
            return PUBLISHED[max(fitting, key=len)]
    return DEFAULT
