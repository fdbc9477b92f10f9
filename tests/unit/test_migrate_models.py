"""Every model of the catalogue that both frameworks train has a description in either, and the same after both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_models
from nemolaunch.checkpoint.megatron.description import to_bridge, to_nemo
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.families.nemo_config import NemoConfig, defaults

RECIPES = {recipe.name: catalogue.model(recipe.name) for recipe in catalogue.recipes()}
BOTH = [name for name, model in RECIPES.items() if bridge_models.refusal(model) is None]


def described(name: str) -> NemoConfig:
    """The configuration that NeMo 2 writes into a checkpoint of the recipe."""
    recipe = RECIPES[name].recipe
    has_size = "vocab_size" in defaults(recipe.config_class)  # Mamba has not
    sizes: dict[str, Any] = {"vocab_size": 8192} if has_size else {}
    return NemoConfig(recipe.model_class, recipe.config_class, {**RECIPES[name].overrides, **sizes})


@pytest.mark.parametrize("name", BOTH)
def test_a_model_is_described_in_either(name: str, tmp_path: Path) -> None:
    before = described(name)
    fields = yaml.safe_load(yaml.safe_dump(to_bridge(before)))
    provider = fields.pop("_target_").rpartition(".")[2]
    checkpoint = tmp_path / "checkpoints" / "iter_0000001"
    checkpoint.mkdir(parents=True)
    (tmp_path / "plan.json").write_text(json.dumps({"recipe": name}))
    after = to_nemo(checkpoint, RunConfig(fields, provider))
    assert to_bridge(after) == to_bridge(before)
    assert after.model_class == RECIPES[name].recipe.model_class


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(BOTH)))
def test_what_bridge_does_not_train_is_refused_by_name(name: str) -> None:
    with pytest.raises(NemolaunchError, match=RECIPES[name].recipe.model_class):
        to_bridge(described(name))
