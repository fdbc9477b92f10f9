"""Parameters, FLOPs, batches and steps against published or hand-counted figures."""

from __future__ import annotations

import pytest

from nemolaunch import arithmetic, catalogue
from nemolaunch.errors import UsageError


@pytest.mark.parametrize(
    ("flavour", "count"),
    [
        ("60M", 63_226_752),
        ("200M", 224_170_752),
        ("400M", 408_511_680),
        ("600M", 622_929_024),
        ("1.1B", 1_069_647_360),
    ],
)
def test_flavours_have_the_published_size_without_input_embedding(flavour: str, count: int) -> None:
    assert arithmetic.parameters(catalogue.model(flavour).architecture, 49_152).non_embedding == count


@pytest.mark.parametrize(
    ("name", "vocab_size", "total"),
    [
        # what Hugging Face reports for the published checkpoints
        ("llama3_8b", 128_256, 8_030_261_248),
        ("llama3_70b", 128_256, 70_553_706_496),
        ("llama31_405b", 128_256, 405_853_388_800),
        ("llama32_1b", 128_256, 1_235_814_400),
        ("llama2_7b", 32_000, 6_738_415_616),
        ("mistral_7b", 32_000, 7_241_732_096),
        ("mixtral_8x7b", 32_000, 46_702_792_704),
        ("mixtral_8x22b", 32_768, 140_630_071_296),
        ("qwen2_7b", 152_064, 7_615_616_512),
        ("qwen3_600m", 151_936, 596_049_920),
        ("qwen3_30b_a3b", 151_936, 30_532_122_624),
        ("gemma_2b", 256_000, 2_506_172_416),
        ("gemma2_9b", 256_000, 9_241_705_984),
        ("gemma3_1b", 262_144, 999_885_952),
        ("phi3_mini_4k_instruct", 32_064, 3_821_079_552),
        ("deepseek_v2_lite", 102_400, 15_706_484_224),
        ("deepseek_v2", 102_400, 235_741_434_880),
    ],
)
def test_recipes_have_the_published_size(name: str, vocab_size: int, total: int) -> None:
    assert arithmetic.parameters(catalogue.recipe(name).architecture, vocab_size).total == total


def test_parts_add_up_for_every_recipe() -> None:
    for row in catalogue.recipes():
        shape = row.architecture
        counts = arithmetic.parameters(shape, arithmetic.vocab_rows(shape, 1000))
        assert 0 < counts.active <= counts.total
        assert (counts.active < counts.total) == (shape.num_moe_experts is not None)
        assert counts.non_embedding == counts.total - counts.embedding
        assert counts.total - sum(layer.total for layer in counts.layers) >= counts.embedding


def test_active_parameters_of_a_mixture_of_experts() -> None:
    counts = arithmetic.parameters(catalogue.recipe("mixtral_8x7b").architecture, 32_000)
    assert counts.active == 12_879_925_248
    assert counts.component("experts") == 4 * counts.component("active_experts")


def test_tied_embeddings_are_counted_once() -> None:
    shape = catalogue.recipe("llama32_1b").architecture
    counts = arithmetic.parameters(shape, 128_256)
    assert counts.output_layer == 0
    assert counts.total == counts.embedding + counts.non_embedding


def test_flops_of_llama_3_8b_by_both_conventions() -> None:
    flops = arithmetic.flops_per_token(catalogue.recipe("llama3_8b").architecture, 128_256, 8192)
    assert flops.full == pytest.approx(57.9e9, rel=1e-3)
    assert flops.causal == pytest.approx(51.5e9, rel=1e-3)


def test_flops_of_tied_models_include_the_output() -> None:
    shape = catalogue.recipe("llama32_1b").architecture
    counts = arithmetic.parameters(shape, 128_256)
    flops = arithmetic.flops_per_token(shape, 128_256, 1024)
    assert flops.full == 6 * counts.total + 12 * shape.num_layers * shape.hidden_size * 1024


def test_a_window_bounds_attention() -> None:
    shape = catalogue.recipe("mistral_7b").architecture
    inside = arithmetic.flops_per_token(shape, 32_000, 4096)
    beyond = arithmetic.flops_per_token(shape, 32_000, 65_536)
    assert beyond.full == inside.full
    assert inside.causal < beyond.causal < beyond.full


def test_only_every_second_layer_of_gemma_2_has_a_window() -> None:
    shape = catalogue.recipe("gemma2_9b").architecture
    short, long = (arithmetic.flops_per_token(shape, 256_000, length).full for length in (4096, 8192))
    width = shape.num_attention_heads * shape.kv_channels
    assert long - short == 12 * shape.num_layers / 2 * width * 4096


def test_no_flops_for_an_encoder_and_decoder() -> None:
    with pytest.raises(ValueError, match="encoder"):
        arithmetic.flops_per_token(catalogue.recipe("t5_220m").architecture, 32_000)


@pytest.mark.parametrize(
    ("vocab", "tensor_parallel", "unit", "padded"),
    [
        (128_256, 1, 128, 128_256),
        (50_257, 1, 128, 50_304),
        (50_257, 8, 128, 51_200),
        (1, 1, 8, 8),
        (9, 1, 8, 16),
    ],
)
def test_padding_of_the_vocabulary(vocab: int, tensor_parallel: int, unit: int, padded: int) -> None:
    assert arithmetic.padded_vocab_size(vocab, tensor_parallel, unit) == padded


def test_a_preset_vocabulary_is_not_padded() -> None:
    assert arithmetic.vocab_rows(catalogue.recipe("qwen2_7b").architecture, 1000, 8) == 152_064
    assert arithmetic.vocab_rows(catalogue.recipe("llama3_8b").architecture, 1000, 8) == 1024
    with pytest.raises(UsageError, match="--hf-model-id"):
        arithmetic.vocab_rows(catalogue.recipe("llama3_8b").architecture, None)


def test_replicas_and_microbatches() -> None:
    assert arithmetic.data_parallel_size(64, tensor_parallel=4, pipeline_parallel=4, context_parallel=2) == 2
    with pytest.raises(UsageError, match="TP 4 x PP 4 x CP 2 = 32"):
        arithmetic.data_parallel_size(8, tensor_parallel=4, pipeline_parallel=4, context_parallel=2)
    assert arithmetic.num_microbatches(512, 2, 8) == 32
    with pytest.raises(UsageError, match="= 16"):
        arithmetic.num_microbatches(2047, 1, 16)


def test_an_epoch_is_whole_samples_that_share_their_last_token() -> None:
    assert arithmetic.samples_per_epoch(8193, 8192) == 1
    assert arithmetic.samples_per_epoch(8192, 8192) == 0
    assert arithmetic.samples_per_epoch(0, 8192) == 0
    assert arithmetic.samples_per_epoch(1001, 10) == 100
    assert arithmetic.steps_per_epoch(1001, 10, 8) == 12
    assert arithmetic.steps_per_epoch(1001, 10, 101) == 0
