"""The shipped catalogue against the installed NeMo: names, defaults, shapes, parameter counts."""

from __future__ import annotations

from pathlib import Path

from forkserver import ForkServer

from nemolaunch import arithmetic, catalogue

CATALOGUE = Path(catalogue.__file__).parent


def test_recipes_json_is_what_nemo_says(fork_server: ForkServer) -> None:
    (text,) = fork_server.run("e2e.catalogue_in_nemo:rendered_recipes")
    assert (CATALOGUE / "recipes.json").read_text(encoding="utf-8") == text, (
        "run `python -m nemolaunch.nemo2.catalogue_dump`"
    )


def test_every_class_that_converts_is_in_nemo(fork_server: ForkServer) -> None:
    classes = {model: list(configs) for model, configs in catalogue.hf_configs().items()}
    assert fork_server.run("e2e.catalogue_in_nemo:missing_classes", {"classes": classes}) == [[]]


def test_parameters_are_those_of_the_model_megatron_builds(fork_server: ForkServer) -> None:
    """All recipes whose layers the CPU backend has, at full size."""
    recipes = [
        recipe
        for recipe in catalogue.recipes()
        if recipe.architecture.kind == "gpt" and not recipe.architecture.multi_latent_attention
    ]
    assert len(recipes) == 66
    names = [recipe.name for recipe in recipes]
    (built,) = fork_server.run("e2e.catalogue_in_nemo:parameter_counts", {"names": names}, timeout=300)
    counted = {
        recipe.name: arithmetic.parameters(
            recipe.architecture, arithmetic.vocab_rows(recipe.architecture, 1000)
        ).total
        for recipe in recipes
    }
    assert counted == built
