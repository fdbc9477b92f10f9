"""What becomes of each field of a job, and of each model of the catalogue, when Megatron-Bridge trains it."""

from __future__ import annotations

from collections import Counter

import pytest

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_fields, bridge_models
from nemolaunch.job import specs


def test_every_field_of_a_job_is_in_one_table() -> None:
    tables = (bridge_fields.SET, bridge_fields.OURS)
    counts = Counter(name for table in tables for name in table)
    assert set(counts) == {spec.name for spec in specs()}
    assert {name for name, times in counts.items() if times > 1} == set()


TRAINS = {
    "baichuan2_7b", "chatglm3_6b", "deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "gemma_2b", "gemma2_27b",
    "gemma3_1b", "gpt3_175b", "llama31_nemotron_70b", "llama4_e16", "llama4_e128", "nemotron3_22b", "nemotron4_340b",
    "mamba2_hybrid_8b", "nemotron_nano_9b_v2", "phi3_mini_4k_instruct", "starcoder_15b", "starcoder2_15b",
    "llama2_7b", "llama3_8b", "llama31_405b", "llama32_1b", "mistral_7b", "mixtral_8x7b", "qwen2_7b", "qwen25_500m",
    "qwen3_600m", "qwen3_30b_a3b",
}  # fmt: skip
REASONS = {
    "t5_220m": "T5",
    "bert_110m": "BERT",
    "hyena_1b": "Hyena",
}


def test_models_are_trained_or_refused_with_a_reason() -> None:
    for name in TRAINS:
        assert bridge_models.refusal(catalogue.model(name)) is None, name
    for name, word in REASONS.items():
        assert word in (bridge_models.refusal(catalogue.model(name)) or ""), name


@pytest.mark.parametrize("recipe", catalogue.recipes(), ids=lambda recipe: recipe.name)
def test_the_model_has_the_size_of_the_recipe(recipe: catalogue.Recipe) -> None:
    model = catalogue.model(recipe.name)
    if bridge_models.refusal(model) is None:
        fields = bridge_models.model_fields(model)
        for name in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"):
            assert fields[name] in (getattr(model.architecture, name), None), name


def test_what_bridge_computes_otherwise_is_said() -> None:
    """NeMo's pretraining has no mask for Gemma 2's windows (`Gemma2DotProductAttention.forward`), and its model does
    not pass on Llama 4's rope scaling (`GPTConfig.configure_model`)."""
    gemma, llama = catalogue.model("gemma2_2b"), catalogue.model("llama4_e16")
    assert bridge_models.differences(gemma, 4096) == []
    assert "last 4097 tokens" in bridge_models.differences(gemma, 8192)[0]
    assert "scaled by 8.0" in bridge_models.differences(llama, 4096)[0]
    assert bridge_models.differences(catalogue.model("llama4_e128"), 8192) == []


def test_llama31_has_its_rope_scaling_in_the_names_of_bridge() -> None:
    """8 and 32 are the factors of Llama 3.1 and 3.2, `rope_scaling.factor` of their config.json."""
    for name, factor in (("llama31_8b", 8.0), ("llama32_1b", 32.0)):
        fields = bridge_models.model_fields(catalogue.model(name))
        assert (fields["rope_scaling"], fields["rope_scaling_factor"]) == (True, factor)
    assert "rope_scaling" not in bridge_models.model_fields(catalogue.model("llama3_8b"))
