"""Which NeMo model class stands for a Hugging Face `model_type`, and which of them convert on a CPU."""

from __future__ import annotations

import difflib

from nemolaunch.errors import NemolaunchError, UsageError

# The first class is meant when none is named. NeMo 2.7.
FAMILIES: dict[str, tuple[str, ...]] = {
    "baichuan": ("Baichuan2Model",),
    "chatglm": ("ChatGLMModel",),
    "deepseek_v2": ("DeepSeekModel",),
    "deepseek_v3": ("DeepSeekModel",),
    "gemma": ("GemmaModel",),
    "gemma2": ("Gemma2Model",),
    "gemma3_text": ("Gemma3Model",),
    "gpt_bigcode": ("StarcoderModel",),
    "gpt_oss": ("GPTOSSModel",),
    # Llama-Nemotron Nano and 70B are published as Llama models
    "llama": ("LlamaModel", "LlamaNemotronModel"),
    "llama4": ("LlamaModel",),
    "mistral": ("MistralModel",),
    "mixtral": ("MixtralModel",),
    "nemotron": ("NemotronModel",),
    "nemotron-nas": ("LlamaNemotronModel",),
    "nemotron_h": ("MambaModel",),
    "phi3": ("Phi3Model",),
    "qwen2": ("Qwen2Model",),
    "qwen3": ("Qwen3Model",),
    "qwen3_moe": ("Qwen3Model",),
    "starcoder2": ("Starcoder2Model",),
}

# NeMo has no tied form of these: a tied source gets an output layer of its own, equal to the embedding.
UNTIED = ("Qwen2Model", "Starcoder2Model", "StarcoderModel")

# Without a GPU NeMo's converters build the model from CPU layers, which these have none of.
NEEDS_GPU = {
    "DeepSeekModel": "multi-latent attention",
    "GPTOSSModel": "attention sinks",
    "MambaModel": "Mamba layers",
}


def model_class(model_type: str, named: str | None = None, *, gpu: bool) -> str:
    """NeMo's class for a `config.json`'s `model_type`; `named` is what the user asked for.

    Raises:
        UsageError: `named` is another family's.
        NemolaunchError: NeMo has no converter for the type, or only on a GPU.
    """
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(model_type, FAMILIES, n=2)
        hint = f" (near it: {', '.join(near)})" if near else ""
        raise NemolaunchError(
            f"NeMo 2 has no converter for model_type {model_type!r}{hint}; "
            f"it has them for {', '.join(FAMILIES)}"
        )
    classes = FAMILIES[model_type]
    if named and named not in classes:
        raise UsageError(
            f"--model-name {named} does not fit: the source's config.json says model_type {model_type!r}, "
            f"which is {' or '.join(classes)}. Leave --model-name out to have it chosen."
        )
    chosen = named or classes[0]
    check_device(chosen, gpu=gpu)
    return chosen


def check_device(name: str, *, gpu: bool) -> None:
    """Raise `NemolaunchError` if the class converts on a GPU only and there is none."""
    if not gpu and name in NEEDS_GPU:
        raise NemolaunchError(
            f"{name} converts only on a machine with a GPU: no CPU has its {NEEDS_GPU[name]}"
        )
