"""Load a model folder with transformers: what its own `config.json` and weights mean, read without our tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.loading import loadable
from nemolaunch.checkpoint.hf.weights import HfWeights, open_tensors
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.rules import counted, some

QUANTISED_FIELDS = ("quantization_config", "compression_config", "quantization")


def load_model(folder: Path) -> Any:
    """Return transformers' model of a folder, in float32 on the CPU.

    transformers reads `config.json`, and the weights too, unless their names have wrappers' prefixes or they
    are quantised in a way that needs a GPU: then it gets the tensors as a conversion reads them.

    Raises `NemolaunchError` if transformers does not find all tensors of its model: it would make the rest up.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    found = hf_folder.read_folder(folder)
    family = bidirectional.family_of(found.config)
    is_ours = family is not None and bidirectional.is_ours(folder, family)
    auto: Any = AutoModelForMaskedLM if is_ours else AutoModelForCausalLM
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "output_loading_info": True,
    }
    weights = open_tensors(found)
    try:
        with loadable(folder) as readable:
            if weights.as_stored:
                model, info = auto.from_pretrained(readable, trust_remote_code=is_ours, **options)
            else:
                model, info = _with_tensors(auto, readable, weights, options)
    finally:
        weights.source.close()
    missing = sorted(info["missing_keys"])
    if missing:
        raise NemolaunchError(
            f"transformers misses {counted(missing, 'tensor')} of its model in {folder}: {some(missing)}"
        )
    return model.eval()


def _with_tensors(auto: Any, folder: Path, weights: HfWeights, options: dict[str, Any]) -> Any:
    """Return the model that transformers makes of a folder's configuration and of given tensors."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for part in (config, config.get_text_config()):
        for name in QUANTISED_FIELDS:
            if hasattr(part, name):
                delattr(part, name)
    with torch.device("meta"):
        model_class = type(auto.from_config(config))
    tensors = {name: weights.source.read(name) for name in weights.source.tensors}
    return model_class.from_pretrained(None, config=config, state_dict=tensors, **options)
