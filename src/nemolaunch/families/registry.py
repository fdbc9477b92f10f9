"""The model families that convert from and to Hugging Face: of 18 decoder classes of NeMo 2.7, and those of Bridge."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families import (
    chinese,
    deepseek,
    gemma,
    glm,
    gpt_oss,
    llama,
    llama4,
    minimax,
    mistral,
    nemotron,
    nemotron_h,
    olmoe,
    phi,
    qwen,
    qwen3_next,
    starcoder,
)
from nemolaunch.families.family import ModelFamily, by_model_type
from nemolaunch.families.nemo_config import NemoConfig, extends

MODULES = (
    llama, llama4, mistral, qwen, gemma, phi, starcoder, nemotron, nemotron_h, deepseek, gpt_oss, chinese,
    olmoe, glm, qwen3_next, minimax,
)  # fmt: skip
FAMILIES: dict[str, ModelFamily] = by_model_type(family for module in MODULES for family in module.FAMILIES)


def of_hf(config: Mapping[str, Any], named: str | None = None) -> ModelFamily:
    """Return the family of a `config.json`; `named` is the NeMo class that the user asked for.

    Raises:
        UsageError: `named` belongs to another family.
        NemolaunchError: there is no conversion for the model type.
    """
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(model_type, FAMILIES, n=2)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise NemolaunchError(
            f"there is no conversion for model_type {model_type!r}{hint}; there is one for {', '.join(FAMILIES)}"
        )
    family = FAMILIES[model_type]
    classes = (family.model_class, *family.also)
    if named and named not in classes:
        raise UsageError(
            f"--model-name {named} does not match: the source's config.json has model_type {model_type!r}, "
            f"which is {' or '.join(classes)}. Drop --model-name to have it chosen automatically."
        )
    return family


def of_nemo(config: NemoConfig) -> ModelFamily:
    """Return the family of a NeMo model. Raises `NemolaunchError` if it has no Hugging Face equivalent."""
    model_type = _model_type(config)
    if model_type is None:
        classes = dict.fromkeys(f.model_class for f in FAMILIES.values() if not f.only_in_bridge)
        raise NemolaunchError(
            f"{config.model_class} with {config.config_class} has no Hugging Face equivalent; these classes have "
            f"one: {', '.join(classes)}"
        )
    return FAMILIES[model_type]


def _model_type(config: NemoConfig) -> str | None:
    fields = config.resolved
    if config.model_class == "LlamaModel":
        return "llama4_text" if extends(config.config_class, "Llama4Config") else "llama"
    if config.model_class == "LlamaNemotronModel":
        return "nemotron-nas" if fields.get("heterogeneous_layers_config_encoded_json") else "llama"
    if config.model_class == "Qwen3Model":
        return "qwen3_moe" if fields.get("num_moe_experts") else "qwen3"
    if config.model_class == "DeepSeekModel":
        return "deepseek_v3" if fields.get("moe_router_score_function") == "sigmoid" else "deepseek_v2"
    own = config.only_in_bridge or extends(config.config_class, "NemotronHConfigBase")
    if config.model_class == "MambaModel" and not own:
        return None
    for family in FAMILIES.values():
        # the catalogue names models that only Bridge has by their class in transformers
        if config.model_class in (family.model_class, family.architecture):
            return family.model_type
    return None
