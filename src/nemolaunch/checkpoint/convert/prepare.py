"""Decide everything about a conversion from headers and configurations, before any tensor is read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.convert.conversion import HEAD, ModelConversion
from nemolaunch.checkpoint.convert.mapping import export_map, import_map, sizes_of
from nemolaunch.checkpoint.convert.sides import SIDES
from nemolaunch.checkpoint.hf import bidirectional, output
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.weights import HfWeights, open_weights
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.checkpoint.storage.wrappers import FirstRows, Renamed, same_tensor
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families import registry
from nemolaunch.families.config_json import described
from nemolaunch.families.family import ModelFamily, precision_fields
from nemolaunch.families.nemo_config import NemoConfig, defaults
from nemolaunch.families.param_shapes import ModelSizes

LAYER = re.compile(r"\.layers\.(\d+)\.")


def prepare_import(
    folder: hf_folder.HfFolder,
    to: str = "nemo2",
    *,
    weights: HfWeights | None = None,
    tokenizer: Path | None = None,
    model_class: str | None = None,
    config_class: str | None = None,
) -> ModelConversion:
    """Prepare a conversion from a Hugging Face model folder to a checkpoint of Megatron.

    Args:
        to: `nemo2` or `bridge`.
        weights: the tensors, if they are not those of the folder's files.
        tokenizer: the folder with the tokenizer, if it is another one.
        model_class, config_class: the NeMo classes that the model must have; optional.

    Raises:
        UsageError: the model does not have a given class.
        NemolaunchError: NeMo cannot represent this model, or tensors or shapes do not match the configuration.
    """
    is_bidirectional = bidirectional.family_of(folder.config) is not None
    folder = dataclasses.replace(folder, config=bidirectional.causal_config(folder.config))
    family = registry.of_hf(folder.config, model_class)
    tokenizer = tokenizer or folder.path
    hf_folder.check_tokenizer(tokenizer)
    hf_config = described(folder.config)
    weights = weights or open_weights(folder, family.prefixes)
    translated = family.to_nemo(hf_config, model_class)
    dtype = _dtype(folder, family, weights.source)
    config = NemoConfig(
        translated.model_class,
        translated.config_class,
        {
            **translated.fields,
            **precision_fields(dtype),
            **(bidirectional.NEMO_FIELDS if is_bidirectional else {}),
        },
    )
    SIDES[to].check(config)
    if config_class:
        _check_named(config_class, config)
    sizes = sizes_of(family, config.resolved)
    source, left_out = _without_extra_layers(family, weights.source, sizes.layers)
    ignored: list[str] = []
    changed = list(weights.changed)
    embedding, head = family.hf_name(EMBEDDING), family.hf_name(HEAD)
    tied = hf_config.get("tie_word_embeddings", family.tied_by_default)
    if sizes["share_embeddings_and_output_weights"]:
        if head in source.tensors and not same_tensor(source, head, embedding):
            raise NemolaunchError(f"config.json ties the embeddings, but {head} differs from {embedding}")
        ignored += [head] if head in source.tensors else []
    elif tied and head not in source.tensors and embedding in source.tensors:
        source = Renamed(source, {**{name: name for name in source.tensors}, head: embedding})
        changed.append(
            f"{config.model_class} cannot tie embeddings: the output layer becomes a copy of the embedding"
        )
    elif not tied and head not in source.tensors and embedding in source.tensors:
        raise NemolaunchError(
            f"{head} is missing, and config.json does not tie the embeddings. If the model shares its output layer "
            'with the embedding, set "tie_word_embeddings": true in config.json'
        )
    rows = int(config.fields["vocab_size"])
    mapped = import_map(family, sizes, source.tensors, rows, ignored=ignored)
    return ModelConversion(
        to=to,
        family=family,
        config=config,
        hf_config=hf_config,
        mapped=mapped,
        source=source,
        tokenizer=tokenizer,
        is_bidirectional=is_bidirectional,
        left_out=[*weights.left_out, *left_out, *ignored],
        changed=changed,
    )


def prepare_export(
    folder: MegatronFolder, tokenizer: Path | None = None, *, trust_remote_code: bool = False
) -> ModelConversion:
    """Prepare a conversion from a checkpoint of Megatron, saved with any parallel layout, to Hugging Face.

    Args:
        tokenizer: the folder with the tokenizer; by default the one that the checkpoint records.

    Raises:
        UsageError: there is no tokenizer.
        NemolaunchError: Hugging Face cannot represent this model, or the weights do not match the configuration.
    """
    if not trust_remote_code:
        folder.check_names()
    config = folder.config
    family = registry.of_nemo(config)
    is_bidirectional = bidirectional.is_bidirectional(config.resolved)
    if is_bidirectional:
        bidirectional.check_family(family.model_type)
    hf_config = family.to_hf(config)
    tokens = folder.find_tokenizer(tokenizer)
    stored = folder.source()
    if EMBEDDING not in stored.tensors:
        raise NemolaunchError(f"{folder.weights} has no {EMBEDDING}, so it is not a complete model")
    exported = _export(stored, family, config, hf_config, tokens, trust_remote_code)
    return dataclasses.replace(
        exported,
        is_bidirectional=is_bidirectional,
        generation=folder.generation,
        changed=[
            *(["the optimizer state is omitted"] if stored.training_state else []),
            *exported.changed,
        ],
    )


def prepare_export_like(stored: TensorSource, like: hf_folder.HfFolder) -> ModelConversion:
    """Prepare a conversion from a NeMo model's bare tensors to the Hugging Face model of another folder.

    Args:
        stored: the tensors with NeMo's names, without a wrapper's prefix.
        like: the folder with the configuration and the tokenizer.

    Raises `NemolaunchError` if NeMo cannot represent that model, or the tensors do not match it.
    """
    family = registry.of_hf(like.config)
    text = dict(like.config.get("text_config") or like.config) if family.prefixes else like.config
    translated = family.to_nemo(text)
    config = NemoConfig(translated.model_class, translated.config_class, translated.fields)
    return _export(stored, family, config, family.to_hf(config), like.path)


def _export(
    stored: TensorSource,
    family: ModelFamily,
    config: NemoConfig,
    hf_config: dict[str, Any],
    tokens: Path,
    trust_remote_code: bool = False,
) -> ModelConversion:
    source = stored
    extra = [name for name in stored.tensors if name.startswith("mtp.")]
    sizes = sizes_of(family, config.resolved)
    changed = []
    if HEAD in stored.tensors and _can_only_copy(family, config) and same_tensor(stored, HEAD, EMBEDDING):
        sizes = ModelSizes({**sizes.config, "share_embeddings_and_output_weights": True})
        hf_config["tie_word_embeddings"] = True
        extra.append(HEAD)
        changed.append("the output layer equals the embedding, so they are tied in the result")
    if extra:
        source = Renamed(stored, {name: name for name in stored.tensors if name not in extra})
    rows = stored.tensors[EMBEDDING].shape[0]
    vocabulary = _vocabulary(config, rows, tokens, trust_remote_code)
    if vocabulary < rows:
        source = FirstRows(source, {EMBEDDING, HEAD} & source.tensors.keys(), vocabulary)
        changed.append(
            f"the last {rows - vocabulary} of {rows} rows of the vocabulary are padding and are omitted"
        )
    vocab_field = next(name for name in ("padded_vocab_size", "vocab_size") if name in hf_config)
    hf_config[vocab_field] = vocabulary
    mapped = export_map(family, sizes, source.tensors, vocabulary)
    return ModelConversion(
        to="hf",
        family=family,
        config=config,
        hf_config=hf_config,
        mapped=mapped,
        source=source,
        tokenizer=tokens,
        left_out=extra,
        changed=changed,
    )


def _dtype(folder: hf_folder.HfFolder, family: ModelFamily, source: TensorSource) -> str:
    """Return the model's dtype: the one in config.json, as NeMo's importer does, or the embedding's."""
    stated = folder.dtype
    stored = source.tensors.get(family.hf_name(EMBEDDING))
    dtype = stated if stated in hf_folder.DTYPES else stored.dtype if stored else None
    if dtype not in hf_folder.DTYPES:
        raise NemolaunchError(
            f"{folder.path / 'config.json'}: the dtype of the weights is {dtype or 'not given'}; it must be one of "
            f"{', '.join(hf_folder.DTYPES)}"
        )
    return str(dtype)


def _without_extra_layers(
    family: ModelFamily, source: TensorSource, num_layers: int
) -> tuple[TensorSource, list[str]]:
    if not family.has_extra_layers:
        return source, []
    extra = [
        name
        for name in source.tensors
        if name.startswith("mtp.") or ((m := LAYER.search(name)) and int(m[1]) >= num_layers)
    ]
    return Renamed(source, {name: name for name in source.tensors if name not in set(extra)}), extra


def _check_named(named: str, found: NemoConfig) -> None:
    """Raise `UsageError` if the sizes of the named configuration class are not the source's."""
    said, has = ModelSizes(defaults(named)), ModelSizes(found.resolved)
    values = {
        "num_layers": (said.layers, has.layers),
        "hidden_size": (said.hidden, has.hidden),
        "ffn_hidden_size": (said.ffn, has.ffn),
        "num_attention_heads": (said.heads, has.heads),
        "num_query_groups": (said.groups, has.groups),
    }
    wrong = [f"{name} {b} instead of {a}" for name, (a, b) in values.items() if a != b]
    if wrong:
        raise UsageError(
            f"--model-config-name {named} does not match the source, which has {', '.join(wrong)}. "
            "Drop the flag to use the configuration of the source."
        )


def _vocabulary(config: NemoConfig, rows: int, tokenizer: Path, trust_remote_code: bool) -> int:
    """Return the vocabulary size without Megatron's padding: the configuration's, or the tokenizer's size."""
    stated = config.resolved.get("vocab_size")
    if stated and stated <= rows:
        return int(stated)
    tokens = output.tokenizer_size(tokenizer, trust_remote_code=trust_remote_code)
    if tokens > rows:
        raise NemolaunchError(
            f"the tokenizer in {tokenizer} has {tokens:,} tokens, but the embedding has {rows:,} rows, so it "
            "belongs to another model; use --tokenizer DIR"
        )
    return tokens


def _can_only_copy(family: ModelFamily, config: NemoConfig) -> bool:
    """Return whether an output layer that equals the embedding may be a copy of a tied one."""
    tied = config.resolved.get("share_embeddings_and_output_weights")
    return not tied and family.copies_tied
