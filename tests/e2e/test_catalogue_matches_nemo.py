"""The shipped catalogue against the installed NeMo: names, defaults, shapes, parameter counts."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import check_jobs
import yaml
from e2e.random_forms import random_form
from forkserver import ForkServer

from nemolaunch import arithmetic, catalogue
from nemolaunch.errors import UsageError
from nemolaunch.estimate import Layout, layout_of_recipe
from nemolaunch.estimate.tensors import local_parameters

CATALOGUE = Path(catalogue.__file__).parent


def test_recipes_json_is_what_nemo_says(fork_server: ForkServer) -> None:
    (text,) = fork_server.run("e2e.catalogue_in_nemo:rendered_recipes")
    assert (CATALOGUE / "recipes.json").read_text(encoding="utf-8") == text, (
        "run `python -m nemolaunch.nemo2.catalogue_dump`"
    )


def test_every_class_that_converts_is_in_nemo(fork_server: ForkServer) -> None:
    classes = {model: list(configs) for model, configs in catalogue.hf_configs().items()}
    assert fork_server.run("e2e.catalogue_in_nemo:missing_classes", {"classes": classes}) == [[]]


def counted_as_built(fork_server: ForkServer, models: list[catalogue.ModelSpec]) -> None:
    described = [(model.name, model.recipe.name, model.overrides) for model in models]
    (built,) = fork_server.run("e2e.catalogue_in_nemo:parameter_counts", {"models": described}, timeout=300)
    counted = {}
    for model in models:
        rows = arithmetic.vocab_rows(model.architecture, 1000)
        counted[model.name] = arithmetic.parameters(model.architecture, rows).total
    assert counted == built


def test_parameters_are_those_of_the_model_megatron_builds(fork_server: ForkServer) -> None:
    """All recipes whose layers the CPU backend has, at full size."""
    models = [
        catalogue.model(recipe.name)
        for recipe in catalogue.recipes()
        if recipe.architecture.kind == "gpt" and not recipe.architecture.multi_latent_attention
    ]
    assert len(models) == 66
    counted_as_built(fork_server, models)


def own_layout(recipe: catalogue.Recipe) -> tuple[Layout, dict[str, Any]]:
    """NVIDIA's own parallel sizes, on as few ranks as they need, as a layout and as flags."""
    own = layout_of_recipe(recipe)
    ranks = own.pipeline * math.lcm(own.tensor, own.expert * own.expert_tensor)
    flags: dict[str, Any] = {
        "model_name": recipe.name,
        "num_gpus": ranks,
        "tensor_model_parallel_size": own.tensor,
        "pipeline_model_parallel_size": own.pipeline,
        "virtual_pipeline_model_parallel_size": own.virtual if own.virtual > 1 else None,
        "sequence_parallel": own.tensor > 1,
        "expert_model_parallel_size": own.expert,
        "expert_tensor_parallel_size": own.expert_tensor if own.expert > 1 else None,
        "global_batch_size": ranks * 16,
    }
    return own, flags


def test_every_rank_holds_as_much_as_is_counted(fork_server: ForkServer) -> None:
    """All 91 recipes in NVIDIA's own layout, also of those kinds that a CPU cannot train: three stages of each."""
    jobs, counted = [], []
    for recipe in catalogue.recipes():
        layout, flags = own_layout(recipe)
        stages = sorted({0, layout.pipeline // 2, layout.pipeline - 1})
        rows = arithmetic.vocab_rows(recipe.architecture, check_jobs.VOCABULARY, layout.tensor)
        jobs.append((flags, stages))
        counted.append([local_parameters(recipe.architecture, layout, stage, rows) for stage in stages])
    (built,) = fork_server.run("truth.whole:parameters", {"jobs": jobs}, timeout=400)
    wrong = {
        jobs[i][0]["model_name"]: (a, b)
        for i, (a, b) in enumerate(zip(built, counted, strict=True))
        if a != b
    }
    assert wrong == {}


def test_models_that_a_cpu_cannot_train_are_counted_whole(fork_server: ForkServer) -> None:
    """Latent attention, Mamba, Hyena, T5, BERT, on one rank."""
    others = [
        r
        for r in catalogue.recipes()
        if r.architecture.kind != "gpt" or r.architecture.multi_latent_attention
    ]
    assert len(others) == 25
    jobs = [({"model_name": recipe.name, "num_gpus": 1}, [0]) for recipe in others]
    (built,) = fork_server.run("truth.whole:parameters", {"jobs": jobs}, timeout=300)
    counted = {}
    for recipe in others:
        rows = arithmetic.vocab_rows(recipe.architecture, check_jobs.VOCABULARY)
        counted[recipe.name] = arithmetic.parameters(recipe.architecture, rows).total
    assert counted == {recipe.name: count for recipe, (count,) in zip(others, built, strict=True)}


def test_architectures_of_ones_own_are_built_as_described(fork_server: ForkServer, tmp_path: Path) -> None:
    models = [catalogue.model(name) for name in catalogue.flavours()]
    shape = (
        "num_layers: 4\nhidden_size: 64\nnum_attention_heads: 8\nnum_query_groups: 4\nffn_hidden_size: 96\n"
    )
    further = {
        "llama32": "",
        "llama4_e128": "num_moe_experts: 4\n"
        "moe_layer_freq: [0, 1, 0, 1]\nmoe_ffn_hidden_size: 32\nmoe_shared_expert_intermediate_size: 48\n",
        "mistral": "kv_channels: 32\nwindow_size: [16, 0]\n",
        "mixtral": "num_moe_experts: 4\nmoe_router_topk: 1\nmoe_router_pre_softmax: true\n",
        "qwen2": "vocab_size: 777\n",
        "qwen3": "share_embeddings_and_output_weights: true\n",
        "qwen3_moe": "moe_ffn_hidden_size: 32\nnum_moe_experts: 9\n",
        "gemma": "",
        "gemma2": "rotary_base: 1e6\n",
        "nemotron": "add_bias_linear: true\n",
        "starcoder": "seq_length: 512\n",
        "starcoder2": "normalization: RMSNorm\n",
        "phi3": "",
        "baichuan2": "qk_layernorm: true\n",
        "chatglm3": "make_vocab_size_divisible_by: 16\n",
        "gpt3": "",
    }
    for base, lines in further.items():
        path = tmp_path / f"{base}.yaml"
        path.write_text(f"base: {base}\n{shape}{lines}")
        models.append(catalogue.model(str(path)))
    counted_as_built(fork_server, models)


def test_any_architecture_that_is_accepted_can_be_built(fork_server: ForkServer, tmp_path: Path) -> None:
    rng, models = random.Random(20), []
    for number in range(500):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(random_form(rng)))
        try:
            models.append(catalogue.model(str(path)))
        except UsageError:
            continue
    assert len(models) > 150
    counted_as_built(fork_server, models)
