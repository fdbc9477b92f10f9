"""Models described by a Hugging Face `config.json`: the configuration of a conversion, on the nearest NeMo recipe."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from nemolaunch.catalogue import bridge_only
from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.bridge_models import PLANNED
from nemolaunch.catalogue.lookup import ModelSpec, recipes
from nemolaunch.catalogue.recipe_table import Recipe
from nemolaunch.catalogue.yamlform import contradictions, has_own_qk_layernorm
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families import registry
from nemolaunch.families.config_json import described
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import NemoConfig, defaults, extends, symbol_name
from nemolaunch.families.param_shapes import ModelSizes

LONG_CONTEXT = re.compile(r"_\d+k(_|$)")  # recipes of the same models with layouts for long sequences
FIELDS = frozenset(field.name for field in dataclasses.fields(Architecture))


def model_from_hf_config(config: Mapping[str, Any], source: str) -> ModelSpec:
    """Return the model that a `config.json` describes; `source` names it.

    Its sequence length is the smaller of the recipe's and the file's `max_position_embeddings`; with learned
    positions, it is the file's.

    Raises:
        UsageError: NeMo has no such model, or no pretraining recipe for it; or the file has values that NeMo's model
            cannot represent, or keys that are not known. The message lists all.
    """
    try:
        family = registry.of_hf(config)
        translated = family.to_nemo(config)
    except NemolaunchError as error:
        raise UsageError(f"--model-name hf: config.json of {source}: {error}") from None
    base = _nearest(translated, family, config, source)
    architecture = _architecture(translated, base)
    if base.bridge_provider:
        fields = {name: value for name, value in translated.fields.items() if name not in PLANNED}
        fields["mtp_num_layers"] = architecture.mtp_num_layers
    else:
        fields = _fields(translated, base, architecture)
    faults = contradictions(architecture)
    if faults:
        raise UsageError(
            f"--model-name hf: config.json of {source} does not describe a valid model:\n  "
            + "\n  ".join(faults)
        )
    return ModelSpec(
        name=source.rstrip("/").rpartition("/")[2],
        recipe=base,
        architecture=architecture,
        overrides={name: value for name, value in fields.items() if name != "seq_length"},
        source=f"config.json of {source}",
        notes=tuple(_notes(family, config, architecture)),
    )


def _nearest(model: NemoConfig, family: ModelFamily, config: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe of the nearest size whose configuration class behaves like the model's."""
    wanted = model.resolved
    found = [
        one
        for one in recipes()
        if one.model_class == model.model_class and _behaves_like(defaults(one.config_class), wanted)
    ] or [one for one in bridge_only.recipes().values() if one.model_class == family.architecture]
    if not found or "heterogeneous_layers_config_encoded_json" in model.fields:
        raise UsageError(
            f"--model-name hf: {source} has model_type {config.get('model_type')!r}, for which NeMo has no "
            "pretraining recipe of variable size. Use the name of a recipe instead (`nemolaunch models`)"
        )
    size = _size(wanted["num_layers"], wanted["hidden_size"])

    def distance(one: Recipe) -> tuple[bool, bool, float]:
        own = _size(one.architecture.num_layers, one.architecture.hidden_size)
        other_class = not extends(one.config_class, model.config_class)
        return other_class, bool(LONG_CONTEXT.search(one.name)), abs(math.log(size / own))

    return min(found, key=distance)


def _size(layers: int, width: int) -> float:
    return float(layers * width**2)


def _behaves_like(own: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a class has the same fields, and the same functions where fields are functions."""
    return own.keys() == wanted.keys() and all(
        symbol_name(own[name]) == symbol_name(value) for name, value in wanted.items()
    )


def _fields(model: NemoConfig, base: Recipe, architecture: Architecture) -> dict[str, Any]:
    """Return the fields to set on the recipe's configuration: those translated, and where its own would differ."""
    own = defaults(base.config_class)
    other = {
        name: value
        for name, value in defaults(model.config_class).items()
        if value != own[name] and symbol_name(value) is None
    }
    recipes_own = dataclasses.asdict(base.architecture)
    changed = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(architecture).items()
        if value != recipes_own[name]
    }
    return {**changed, **other, **model.fields}


def _architecture(model: NemoConfig, base: Recipe) -> Architecture:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in model.resolved.items()
        if name in FIELDS and symbol_name(value) is None
    }
    sizes = ModelSizes(fields)
    fields |= {"kv_channels": sizes.head_dim, "num_query_groups": sizes.groups, "ffn_hidden_size": sizes.ffn}
    if sizes.experts:
        fields["moe_ffn_hidden_size"] = sizes.moe_ffn
    if has_own_qk_layernorm(base.architecture):
        del fields["qk_layernorm"]
    if base.bridge_provider:  # of its depth; the layers that predict further tokens are not converted either
        fields |= {"num_layers_in_last_pipeline_stage": None, "mtp_num_layers": None}
    if fields["position_embedding_type"] != "learned_absolute":
        fields["seq_length"] = min(fields["seq_length"], base.architecture.seq_length)
    return dataclasses.replace(base.architecture, **fields)


def _notes(family: ModelFamily, config: Mapping[str, Any], architecture: Architecture) -> list[str]:
    if family.only_in_bridge and described(config).get("num_nextn_predict_layers"):
        return ["it has no layers that predict further tokens, which `nemolaunch convert` omits"]
    tied = described(config).get("tie_word_embeddings", family.tied_by_default)
    if not tied or architecture.share_embeddings_and_output_weights:
        return []
    rows = int(architecture.vocab_size or 0)
    return [
        f"it ties the output layer to the embedding, but NeMo's {family.model_class} has an output layer of its own, "
        f"as `nemolaunch convert` makes it: {rows * architecture.hidden_size:,} parameters more"
    ]
