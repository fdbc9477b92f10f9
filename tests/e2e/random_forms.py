"""Random architectures as YAML forms: small, of every decoder family, most of them sensible."""

from __future__ import annotations

import random
import typing
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue.lookup import FAMILY_BASE

FIELDS = typing.get_type_hints(catalogue.Architecture)
VALUES: dict[Any, list[Any]] = {
    int: [1, 2, 3, 4, 8, 16, 64],
    float: [0.5, 1.0, 2.0, 10000.0, 0.1],
    bool: [True, False],
    str: ["RMSNorm", "LayerNorm", "rope", "none", "learned_absolute", "softmax", "sigmoid"],
    type(None): [None],
}


def decoder_bases() -> list[str]:
    """Family names whose layers the CPU backend has."""
    shapes = {base: catalogue.recipe(name).architecture for base, name in FAMILY_BASE.items()}
    return [
        base for base, shape in shapes.items() if shape.kind == "gpt" and not shape.multi_latent_attention
    ]


def random_form(rng: random.Random) -> dict[str, Any]:
    """Sizes that fit each other, and up to three fields that may be anything of their type."""
    base = rng.choice(decoder_bases())
    shape = catalogue.recipe(FAMILY_BASE[base]).architecture
    layers = rng.choice([1, 2, 4])
    form: dict[str, Any] = {"base": base, "num_layers": layers, "hidden_size": rng.choice([32, 48, 64])}
    form |= {"num_attention_heads": rng.choice([2, 4, 8]), "num_query_groups": rng.choice([1, 2])}
    form["ffn_hidden_size"] = rng.choice([64, 100])
    if shape.num_moe_experts:
        form |= {"num_moe_experts": rng.choice([2, 4]), "moe_ffn_hidden_size": 32}
    if isinstance(shape.moe_layer_freq, tuple):
        form["moe_layer_freq"] = [rng.choice([0, 1]) for _ in range(layers)]
    for field in rng.sample(sorted(FIELDS.keys() - form.keys()), rng.randrange(4)):
        kind = rng.choice(typing.get_args(FIELDS[field]) or (FIELDS[field],))
        form[field] = (
            rng.choice(VALUES[kind]) if kind in VALUES else [rng.choice([0, 1, 8]) for _ in range(2)]
        )
    return form
