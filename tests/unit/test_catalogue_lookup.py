"""Lookup of recipes, flavours and GPUs by name, and the messages for unknown names."""

from __future__ import annotations

import dataclasses

import pytest

from nemolaunch import catalogue
from nemolaunch.errors import UsageError


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as error:
        catalogue.model(name)
    return str(error.value)


def test_every_recipe_is_found_by_its_name_with_nothing_overridden() -> None:
    rows = catalogue.recipes()
    assert len(rows) == 91
    for row in rows:
        found = catalogue.model(row.name)
        assert found.recipe is row
        assert found.architecture is row.architecture
        assert found.overrides == {}
        assert found.source == "NeMo recipe"


def test_a_recipe_row_says_what_nemo_sets() -> None:
    row = catalogue.recipe("llama3_70b")
    assert (row.model_class, row.config_class) == ("LlamaModel", "Llama3Config70B")
    assert (row.tensor_model_parallel_size, row.pipeline_model_parallel_size) == (4, 4)
    assert (row.virtual_pipeline_model_parallel_size, row.context_parallel_size) == (5, 2)
    assert row.sequence_parallel
    assert row.performance_mode
    assert row.hf_import
    assert row.hf_export
    shape = row.architecture
    assert (shape.num_layers, shape.hidden_size, shape.ffn_hidden_size) == (80, 8192, 28672)
    assert (shape.num_attention_heads, shape.num_query_groups, shape.kv_channels) == (64, 8, 128)


def test_rows_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalogue.recipe("llama3_8b").architecture.num_layers = 2  # type: ignore[misc]


def test_dense_first_layers_of_deepseek_are_known() -> None:
    shape = catalogue.recipe("deepseek_v3").architecture
    assert [shape.is_moe_layer(layer) for layer in range(5)] == [False, False, False, True, True]
    assert shape.num_moe_layers == 58


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("llama3.2-1b", "llama32_1b"),
        ("Llama-3.2-1B", "llama32_1b"),
        ("meta-llama/Llama-3.2-1B", "llama32_1b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3_8b"),
        ("llama3-8b", "llama3_8b"),
        ("Qwen/Qwen2.5-0.5B", "qwen25_500m"),
        ("Qwen2.5-1.5B", "qwen25_1p5b"),
        ("Qwen3-30B-A3B", "qwen3_30b_a3b"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral_8x7b"),
        ("llama3_8bb", "llama3_8b"),
        ("aixsim60m", "aixsim-60m"),
    ],
)
def test_a_different_spelling_suggests_the_recipe_first(written: str, meant: str) -> None:
    message = refusal(written)
    assert f"Did you mean {meant}" in message
    assert "--model-name" in message


@pytest.mark.parametrize("family", ["qwen2", "bert", "nemotron3", "llama3", "starcoder2"])
def test_a_family_name_lists_its_recipes(family: str) -> None:
    message = refusal(family)
    for row in catalogue.recipes():
        if row.family == family:
            assert row.name in message


def test_modules_that_cannot_pretrain_say_why() -> None:
    assert "fine-tuned" in refusal("e5_340m")
    assert "distilled" in refusal("llama31_nemotron_ultra_253b")
    assert "helper" in refusal("finetune_default")


def test_a_name_without_similar_ones_points_to_the_list() -> None:
    message = refusal("xyzzy")
    assert "Did you mean" not in message
    assert "nemolaunch models" in message


@pytest.mark.parametrize("name", ["", " ", "/", "..", "llama3_8b ", "名前", "a" * 5000, "a\0b", "a/b\nc"])
def test_odd_names_are_rejected_without_a_crash(name: str) -> None:
    refusal(name)


@pytest.mark.parametrize("name", ["aixsim-60m", "60M", "60m", "AIXSIM-60M", "nano", "Nano", "1.1B"])
def test_flavours_are_found_in_any_case(name: str) -> None:
    found = catalogue.model(name)
    assert found.source == "flavour shipped with nemolaunch"
    assert found.recipe.name == "llama3_8b"
    assert found.name == found.name.lower()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("H100", "h100"),
        ("h100-sxm", "h100"),
        ("a100", "a100-80"),
        ("RTX 4090", "rtx-4090"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla V100-SXM2-32GB", "v100"),
    ],
)
def test_gpus_are_found_by_common_and_driver_names(written: str, meant: str) -> None:
    assert catalogue.gpu(written) is catalogue.gpu(meant)


def test_an_unknown_gpu_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(UsageError) as error:
        catalogue.gpu("h1000")
    assert "Did you mean h100" in str(error.value)
    assert "b200" in str(error.value)


def test_gpu_rows_are_consistent() -> None:
    for row in catalogue.gpus():
        has_fp8 = row.compute_capability is not None and row.compute_capability >= (8, 9)
        assert (row.peak_fp8 is not None) == has_fp8, row.name
        if row.peak_fp8 and row.peak_bf16:
            assert row.peak_fp8 == pytest.approx(2 * row.peak_bf16, rel=0.02), row.name
        if row.peak_tf32:
            assert row.peak_fp16 == pytest.approx(2 * row.peak_tf32, rel=0.02), row.name


def test_class_pairs_for_conversion() -> None:
    assert catalogue.conversion_classes("LlamaModel", "Llama32Config1B") == ("LlamaModel", "Llama32Config1B")
    with pytest.raises(UsageError, match="Did you mean LlamaModel"):
        catalogue.conversion_classes("LLamaModl", "Llama32Config1B")
    with pytest.raises(UsageError, match="Did you mean Llama32Config1B"):
        catalogue.conversion_classes("LlamaModel", "Llama3.2Config1B")
    with pytest.raises(UsageError, match="belongs to --model-name Qwen2Model"):
        catalogue.conversion_classes("LlamaModel", "Qwen2Config7B")


def test_models_that_a_cpu_cannot_train_are_unsupported() -> None:
    def status(name: str) -> str:
        return catalogue.cpu_rehearsal(catalogue.recipe(name)).status

    assert status("llama3_8b") == "runs"
    assert status("llama31_8b") == "expected"
    for name in ("hyena_1b", "t5_220m"):
        assert status(name) == "unsupported"
