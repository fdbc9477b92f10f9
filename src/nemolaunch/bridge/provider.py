"""Plan → the model's configuration in Bridge, which also builds the model."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial
from typing import Any

from megatron.bridge.models.gpt_provider import GPTModelProvider
from megatron.core.transformer.enums import AttnBackend

from nemolaunch.catalogue import bridge_models
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.bridge_classes import BLOCK
from nemolaunch.planning import Plan
from nemolaunch.ranks.layout import as_config_wants, exchange_fields, parallel_fields, split_fields


def provider(plan: Plan) -> GPTModelProvider:
    """Return the model's configuration.

    Raises:
        NemolaunchError: the installed Bridge lacks a field that the model needs.
    """
    cls = symbol(bridge_models.provider(plan.model_row) or bridge_models.GPT)
    names = {field.name for field in dataclasses.fields(cls)}
    values = {name: built(name, value) for name, value in bridge_models.model_fields(plan.model_row).items()}
    _require_fields(plan, {name: value for name, value in values.items() if name not in names})
    model = cls(**{name: value for name, value in values.items() if name in names})
    layers = plan.model_row.recipe.bridge_layers
    if model.multi_latent_attention:  # layers differ: the first have no experts
        layers = layers or BLOCK
    if layers:
        model.transformer_layer_spec = layer_spec(layers)
    _set_sizes(model, plan)
    every = model.no_rope_freq
    if isinstance(every, int):  # Megatron's own list of it wants a depth that is a multiple
        model.no_rope_freq = [int((layer + 1) % every == 0) for layer in range(model.num_layers)]
    for name, value in {**parallel_fields(plan), **exchange_fields(plan), **split_fields(plan)}.items():
        setattr(model, name, value)
    _set_memory(model, plan)
    _set_kernels(model, plan)
    if plan.device == "cpu":
        model.gradient_accumulation_fusion = False  # elsewhere Bridge has looked whether there is a kernel
    return model


def built(name: str, value: Any) -> Any:
    """Return the object that a value of NeMo's `model.yaml` stands for."""
    if isinstance(value, dict) and "_target_" in value:
        return symbol(value["_target_"])
    return as_config_wants(name, value)


def layer_spec(path: str) -> Any:
    """Return the function at a path that describes a model's layers, which are Transformer Engine's."""
    return partial(symbol(path), use_transformer_engine=True) if path == BLOCK else symbol(path)


def symbol(path: str) -> Any:
    """Return the class or function at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _require_fields(plan: Plan, missing: dict[str, Any]) -> None:
    """Refuse fields that this Bridge does not have, unless they switch off something that it does not have either."""
    wrong = [f"{name}={value!r}" for name, value in sorted(missing.items()) if value not in (None, False)]
    if wrong:
        raise NemolaunchError(
            f"the installed Megatron-Bridge has no field for {', '.join(wrong)} of the model {plan.model}"
        )


def _set_sizes(model: GPTModelProvider, plan: Plan) -> None:
    model.seq_length = plan.seq_length
    model.vocab_size = plan.model_row.architecture.vocab_size  # None: the tokenizer's, padded for the layout


def _set_memory(model: GPTModelProvider, plan: Plan) -> None:
    m, recipe = plan.job.memory, plan.model_row.recipe
    source = m if m.recompute_granularity or m.cpu_offloading else recipe
    model.recompute_granularity = source.recompute_granularity
    model.recompute_method = source.recompute_method
    model.recompute_num_layers = source.recompute_num_layers
    modules = m.recompute_modules or recipe.recompute_modules
    if modules:
        model.recompute_modules = list(modules)
    if m.cpu_offloading:
        model.cpu_offloading = True
        model.cpu_offloading_num_layers = m.cpu_offloading_layers
        model.cpu_offloading_activations = m.cpu_offloading_activations
        model.cpu_offloading_weights = m.cpu_offloading_weights


def _set_kernels(model: GPTModelProvider, plan: Plan) -> None:
    speed, recipe = plan.job.speed, plan.model_row.recipe
    model.attention_backend = AttnBackend[speed.attention_backend or recipe.attention_backend]
    if speed.attention_backend == "local":
        model.masked_softmax_fusion = False  # Megatron assumes that Apex is installed
    if plan.job.objective.moe_z_loss_coeff is not None:
        model.moe_z_loss_coeff = plan.job.objective.moe_z_loss_coeff
    if speed.cuda_graphs:
        model.cuda_graph_impl = (
            "transformer_engine"  # of each layer; Bridge's `local` captures whole steps only
        )
        model.use_te_rng_tracker = True
    if speed.tp_comm_overlap is not None:
        model.tp_comm_overlap = speed.tp_comm_overlap
