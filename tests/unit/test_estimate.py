"""Estimates of memory, time and disk, compared with independent numbers."""

from __future__ import annotations

from typing import Any

import pytest
from check_jobs import facts, job, resolved

from nemolaunch import arithmetic, catalogue
from nemolaunch.catalogue import Recipe
from nemolaunch.estimate import (
    Layout,
    SpeedAssumption,
    estimate,
    estimate_layout,
    layout_of,
    layout_of_recipe,
    memory,
)
from nemolaunch.estimate.layout import stage_layers
from nemolaunch.estimate.memory import chunks_in_flight, stage_memory
from nemolaunch.estimate.published import measurements, share
from nemolaunch.estimate.tensors import local_parameters
from nemolaunch.estimate.time import bubble_share
from nemolaunch.resolve import resolve

GIB = 2**30


def names(recipes: tuple[Recipe, ...]) -> list[str]:
    return [recipe.name for recipe in recipes]


@pytest.mark.parametrize("name", names(catalogue.recipes()))
def test_tensors_of_one_rank_are_the_whole_model(name: str) -> None:
    model = catalogue.model(name)
    rows, _ = arithmetic.model_vocab_rows(model, None)
    alone = local_parameters(model.architecture, Layout(world_size=1), 0, rows)
    assert alone == arithmetic.parameters(model.architecture, rows).total


@pytest.mark.parametrize(
    "name", ["llama3_8b", "mixtral_8x7b", "deepseek_v2_lite", "qwen3_8b", "nemotron4_15b"]
)
def test_ranks_hold_the_model_and_copies_of_what_is_not_split(name: str) -> None:
    model = catalogue.model(name)
    a = model.architecture
    rows, _ = arithmetic.model_vocab_rows(model, None, 4)
    split = Layout(world_size=8, tensor=4, expert=4, expert_tensor=1, pipeline=1)
    alone = local_parameters(a, Layout(world_size=1), 0, rows)
    on_a_rank = local_parameters(a, split, 0, rows)
    assert alone / 4 < on_a_rank < alone / 4 * 1.1


def test_aixsim_60m_has_the_published_number_of_weights() -> None:
    model = catalogue.model("aixsim-60m")
    rows, _ = arithmetic.model_vocab_rows(model, 49152)
    assert arithmetic.parameters(model.architecture, rows).non_embedding == 63_226_752


@pytest.mark.parametrize("name", names(catalogue.recipes()))
def test_every_layer_is_on_one_stage(name: str) -> None:
    recipe = catalogue.recipe(name)
    layout = layout_of_recipe(recipe)
    chunks = [c for s in range(layout.pipeline) for c in stage_layers(recipe.architecture, layout, s)]
    assert sorted(layer for chunk in chunks for layer in chunk) == list(range(recipe.architecture.num_layers))


def test_virtual_stages_alternate() -> None:
    a = catalogue.model("llama3_8b").architecture
    layout = Layout(world_size=4, pipeline=4, virtual=2)
    assert stage_layers(a, layout, 1) == ((4, 5, 6, 7), (20, 21, 22, 23))


@pytest.mark.parametrize(
    ("sizes", "in_flight"),
    [
        ({"pipeline": 1}, [1]),
        ({"pipeline": 4}, [4, 3, 2, 1]),
        ({"pipeline": 4, "virtual": 2}, [11, 9, 7, 5]),
        ({"pipeline": 4, "global_batch_size": 2}, [2, 2, 2, 1]),
    ],
)
def test_microbatches_in_flight(sizes: dict[str, int], in_flight: list[int]) -> None:
    values: dict[str, Any] = {"world_size": sizes["pipeline"], "global_batch_size": 64, **sizes}
    layout = Layout(**values)
    assert [chunks_in_flight(layout, stage) for stage in range(layout.pipeline)] == in_flight


def test_the_bubble_is_narayanans() -> None:
    assert bubble_share(Layout(world_size=4, pipeline=4, global_batch_size=8)) == pytest.approx(3 / 11)
    interleaved = Layout(world_size=4, pipeline=4, virtual=2, global_batch_size=8)
    assert bubble_share(interleaved) == pytest.approx(1.5 / 9.5)


def of_llama(**values: Any) -> Any:
    layout = Layout(**{"world_size": 8, "seq_length": 8192, "global_batch_size": 128, **values})
    return memory(catalogue.model("llama3_8b").architecture, layout, 128256)


def test_adam_in_bf16_takes_18_bytes_a_weight_and_shares_12() -> None:
    m = of_llama(world_size=1)
    weights = 8_030_261_248
    assert m.parameters + m.gradients + m.optimizer == pytest.approx(18 * weights, rel=1e-6)
    assert of_llama().optimizer == pytest.approx(12 * weights / 8, rel=1e-6)


def test_fully_sharded_divides_all_by_the_shard_degree_only() -> None:
    whole, half = of_llama(fsdp_shard=8), of_llama(fsdp_shard=4, fsdp_replicate=2)
    assert whole.parameters + whole.gradients + whole.optimizer == pytest.approx(
        18 * 8_030_261_248 / 8, rel=1e-6
    )
    assert half.gradients == pytest.approx(2 * whole.gradients, rel=1e-6)


def test_what_saves_memory_saves_it() -> None:
    plain = of_llama()
    assert of_llama(context=2).activations == pytest.approx(plain.activations / 2, rel=0.01)
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    assert of_llama(**full).activations == 32 * 8192 * 4096 * 2
    assert of_llama(offloaded_layers=16).activations == pytest.approx(plain.activations / 2, rel=0.01)
    tensor, sequence = of_llama(tensor=4), of_llama(tensor=4, sequence_parallel=True)
    assert sequence.activations == pytest.approx(plain.activations / 4, rel=0.01)
    assert sequence.activations < tensor.activations < plain.activations
    offloaded = of_llama(optimizer_offload=0.5)
    assert offloaded.optimizer == pytest.approx(plain.optimizer / 2, rel=1e-6)
    copies = 4 / 12  # of gradients, beside fp32 weights and two moments
    assert offloaded.host == pytest.approx(plain.optimizer / 2 * (1 + copies), rel=1e-6)
    assert of_llama(fp8=True).activations < plain.activations


def test_tabulated_shares_follow_from_the_published_speeds() -> None:
    assert all(share(m) == m.tabulated for m in measurements())


def test_16_bit_moments_of_a_recipe_are_counted() -> None:
    own = layout_of(resolved(job("deepseek_v3")))
    assert (own.moment_bytes, own.master_bytes) == (4, 2)
    other = layout_of(resolved(job("deepseek_v3", optim_cpu_offloading=True)))
    assert (other.moment_bytes, other.master_bytes) == (8, 4)


def test_the_first_stage_of_a_pipeline_is_fullest() -> None:
    a = catalogue.model("llama3_70b").architecture
    layout = Layout(world_size=64, tensor=4, pipeline=4, virtual=5, sequence_parallel=True,
                    seq_length=8192, global_batch_size=512)  # fmt: skip
    totals = [stage_memory(a, layout, stage, 128256).total for stage in range(4)]
    assert totals[0] == max(totals) == memory(a, layout, 128256).total
    assert memory(a, layout, 128256).rank == "ranks of the first pipeline stage"


def test_nvidias_recipes_fit_on_the_gpus_they_are_made_for() -> None:
    h100 = catalogue.gpu("h100")
    for name, world in (("llama3_8b", 8), ("llama3_70b", 32), ("llama31_405b", 256), ("mistral_7b", 8)):
        model = catalogue.model(name)
        layout = layout_of_recipe(model.recipe, world_size=world)
        assert estimate_layout(model, layout, h100).fits is not False, name


def estimated(model: str = "llama3_8b", speed: SpeedAssumption | None = None, **values: Any) -> Any:
    asked = job(model, **{"num_nodes": 8, "max_steps": 1000, "global_batch_size": 512, **values})
    return estimate(resolved(asked), speed or SpeedAssumption())


def test_a_given_share_of_the_peak_gives_the_time() -> None:
    e = estimated(speed=SpeedAssumption(mfu=0.4), gpu="h100")
    flops = e.time.flops_per_token_full * 512 * 8192 * 1000
    assert e.time.total_s == pytest.approx(flops / (64 * 0.4 * 989.4e12), rel=1e-3)
    assert e.time.gpu_hours == pytest.approx(e.time.total_s * 64 / 3600)
    assert e.time.tokens == 512 * 8192 * 1000
    assert e.time.mfu_causal / 0.4 == pytest.approx(
        e.time.flops_per_token_causal / e.time.flops_per_token_full
    )
    assert e.time.error == 0.0


def test_an_earlier_runs_speed_carries_over_by_flops() -> None:
    e = estimated(speed=SpeedAssumption(flops_per_s=400e12, run="runs/a"))
    assert e.time.tokens_per_s == pytest.approx(64 * 400e12 / e.time.flops_per_token_full)
    assert "runs/a" in e.time.source


def test_published_speeds_are_the_default() -> None:
    e = estimated(gpu="h100")
    assert 0.3 < e.time.mfu_full < 0.5
    assert e.time.error >= 0.2
    assert "published" in e.time.source


def test_a_gpu_is_only_assumed_if_none_is_visible_or_given() -> None:
    assert estimated().gpu.name == "h100"
    assert "assumed" in estimated().gpu_origin
    assert estimated(gpu="b200").gpu.name == "b200"


def test_disk_holds_the_checkpoints_kept_and_one_more() -> None:
    e = estimated(keep_latest=2, checkpoint_every=100)
    assert e.disk.checkpoint == pytest.approx(14 * e.parameters, rel=0.01)
    assert e.disk.checkpoints == 3
    assert estimated(keep_latest=-1, checkpoint_every=100).disk.checkpoints == 10


def test_impossible_sizes_are_not_estimated() -> None:
    assert estimated(pipeline_model_parallel_size=10**9, num_nodes=10**9) is None
    assert estimated(seq_length=10**300) is None


def test_22_tokens_a_weight_are_the_7075_steps_of_the_60m_run() -> None:
    asked = job("aixsim-60m", tokens_per_param=22.0, global_batch_size=96, seq_length=2048, num_gpus=2)
    model = catalogue.model("aixsim-60m")
    seen = facts(asked, tokenizer=None)
    r = resolve(asked, model, seen)
    assert r.job.batch.max_steps == 7075
    assert r.job.batch.tokens_per_param is None
    assert r.origins["max_steps"].startswith("22 tokens for each of 63,226,752 weights")


@pytest.mark.parametrize(
    ("tokens", "samples"), [(4_194_304, 512), (4_000_000, 496), (1, 16), (16 * 8192, 16)]
)
def test_a_batch_in_tokens_is_the_nearest_that_ranks_can_share(tokens: int, samples: int) -> None:
    r = resolved(job(num_nodes=2, global_batch_tokens=tokens))
    assert r.job.batch.global_batch_size == samples
    assert ("rounded" in r.origins["global_batch_size"]) == (samples * 8192 != tokens)


def test_a_length_in_tokens_is_reached() -> None:
    r = resolved(job(num_nodes=2, max_tokens=10**10, global_batch_size=512))
    assert r.job.batch.max_steps == -(-(10**10) // (512 * 8192))


def test_a_recipes_recomputation_applies_unless_the_job_sets_it() -> None:
    assert layout_of(resolved(job("qwen3_32b"))).recompute_granularity == "full"
    assert (
        layout_of(resolved(job("qwen3_32b", recompute_granularity="selective"))).recompute_num_layers is None
    )


@pytest.mark.parametrize(
    "name", ["a100-40", "a100-80", "h100", "h200", "b200", "gb200", "l40s", "rtx-4090", "mi250x"]
)
def test_common_gpus_are_listed_with_a_source(name: str) -> None:
    row = catalogue.gpu(name)
    assert row.source
    assert row.memory_bytes >= 24 * GIB
    assert row.memory_bandwidth > 0
    assert row.peak_bf16
    assert estimated(gpu=name).time.total_s > 0
