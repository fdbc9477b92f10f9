"""`-M hf`: the architecture in a Hugging Face config.json, held against transformers' own models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemolaunch.arithmetic import parameters
from nemolaunch.catalogue.hf_config import model_from_hf_config
from nemolaunch.cli.main import main
from nemolaunch.errors import UsageError

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama, tied, scaled": (
        "LlamaConfig",
        {
            "tie_word_embeddings": True,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 1024,
            },
        },
    ),
    "mistral": ("MistralConfig", {"head_dim": 16}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "gemma": ("GemmaConfig", {"head_dim": 32}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_has_as_many_parameters(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    kind, special = CONFIGS[name]
    config = getattr(transformers, kind)(**SMALL, **special)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    model = model_from_hf_config(written, "org/name")
    assert parameters(model.architecture, SMALL["vocab_size"]).total == built.num_parameters()
    assert model.architecture.seq_length == 2048
    assert model.name == "name"


def test_a_family_without_a_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model_type 'bloom'.*llama"):
        model_from_hf_config({"model_type": "bloom"}, "org/name")


def test_scaling_that_nemo_cannot_express_is_refused() -> None:
    config = {"model_type": "llama", **SMALL, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    with pytest.raises(UsageError, match="yarn"):
        model_from_hf_config(config, "org/name")


@pytest.mark.parametrize("command", ["count-params", "estimate-mem", "suggest"])
def test_estimates_read_the_same_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Llama 3.2 1B has 1,235,814,400 parameters, as its model card on the hub counts them."""
    for file in (Path(__file__).parents[2] / "examples" / "tokenizer").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rope = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
        "rope_parameters": {**rope, "original_max_position_embeddings": 8192, "rope_theta": 500000.0},
        "max_position_embeddings": 131072,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = [command, "-M", "hf"]
    gpus = [] if command == "count-params" else ["-G", "8"]
    assert main([*words, "--hf-model-id", str(tmp_path), *gpus]) == 0
    said = capsys.readouterr().out
    expected = {
        "count-params": "1,235,814,400",
        "estimate-mem": "1.24 B parameters",
        "suggest": tmp_path.name,
    }
    assert expected[command] in said
    assert main(words) != 0
