"""Decide everything about a conversion from headers and configurations, before a byte of a tensor is read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint import families
from nemolaunch.checkpoint.convert.conversion import EMBEDDING, HEAD, ModelConversion
from nemolaunch.checkpoint.convert.mapping import export_map, import_map, sizes_of
from nemolaunch.checkpoint.families.family import ModelFamily, precision_fields
from nemolaunch.checkpoint.families.nemo_config import NemoConfig, defaults
from nemolaunch.checkpoint.families.param_shapes import ModelSizes
from nemolaunch.checkpoint.hf import bidirectional, output
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.weights import HfWeights, open_weights
from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.nemo2.folder import Nemo2Folder
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.checkpoint.storage.wrappers import FirstRows, Renamed, same_tensor
from nemolaunch.errors import NemolaunchError, UsageError

LAYER = re.compile(r"\.layers\.(\d+)\.")


def prepare_import(
    folder: hf_folder.HfFolder,
    *,
    weights: HfWeights | None = None,
    tokenizer: Path | None = None,
    model_class: str | None = None,
    config_class: str | None = None,
) -> ModelConversion:
    """From a Hugging Face model folder to NeMo 2.

    Args:
        weights: the tensors, where they are not those of the folder's files.
        tokenizer: folder with the tokenizer, where it is not this one.
        model_class, config_class: NeMo's classes that the user names; checked, and not needed.

    Raises:
        UsageError: a named class does not fit.
        NemolaunchError: NeMo has no form of this model; tensors or shapes are not those it says.
    """
    both_sides = bidirectional.family_of(folder.config) is not None
    folder = dataclasses.replace(folder, config=bidirectional.causal_config(folder.config))
    family = families.of_hf(folder.config, model_class)
    tokenizer = tokenizer or folder.path
    hf_folder.check_tokenizer(tokenizer)
    hf_config = dict(folder.config.get("text_config") or folder.config) if family.prefixes else folder.config
    weights = weights or open_weights(folder, family.prefixes)
    translated = family.to_nemo(hf_config, model_class)
    dtype = _dtype(folder, family, weights.source)
    config = NemoConfig(
        translated.model_class,
        translated.config_class,
        {**translated.fields, **precision_fields(dtype), **(bidirectional.NEMO_FIELDS if both_sides else {})},
    )
    if config_class:
        _check_named(config_class, config)
    sizes = sizes_of(family, config.resolved)
    source, left_out = _without_further_layers(family, weights.source, sizes.layers)
    ignored: list[str] = []
    changed = ["8- or 4-bit weights become bfloat16"] if weights.quantised else []
    embedding, head = family.hf_name(EMBEDDING), family.hf_name(HEAD)
    tied = hf_config.get("tie_word_embeddings", family.tied_by_default)
    if sizes["share_embeddings_and_output_weights"]:
        if head in source.tensors and not same_tensor(source, head, embedding):
            raise NemolaunchError(f"config.json ties the embeddings, but {head} differs from {embedding}")
        ignored += [head] if head in source.tensors else []
    elif tied and head not in source.tensors and embedding in source.tensors:
        source = Renamed(source, {**{name: name for name in source.tensors}, head: embedding})
        changed.append(f"{config.model_class} has no tied form: the output layer is a copy of the embedding")
    elif not tied and head not in source.tensors and embedding in source.tensors:
        raise NemolaunchError(
            f"there is no {head}, and config.json does not tie the embeddings: if the model has no output layer of "
            'its own, set "tie_word_embeddings": true there'
        )
    rows = int(config.fields["vocab_size"])
    mapped = import_map(family, sizes, source.tensors, rows, ignored=ignored)
    return ModelConversion(
        to="nemo2",
        family=family,
        config=config,
        hf_config=dict(hf_config),
        mapped=mapped,
        source=source,
        tokenizer=tokenizer,
        both_sides=both_sides,
        left_out=[*weights.left_out, *left_out, *ignored],
        changed=changed,
    )


def prepare_export(folder: Nemo2Folder, tokenizer: Path | None = None) -> ModelConversion:
    """From a NeMo 2 checkpoint, saved at any parallel layout, to a Hugging Face model.

    Args:
        tokenizer: folder with the tokenizer; by default what the checkpoint's context records.

    Raises:
        UsageError: there is no tokenizer.
        NemolaunchError: Hugging Face has no form of this model; the weights are not those it says.
    """
    config = folder.config
    family = families.of_nemo(config)
    both_sides = bidirectional.attends_to_both_sides(config.resolved)
    if both_sides:
        bidirectional.check_family(family.model_type)
    hf_config = family.to_hf(config)
    where = folder.path / "context"
    tokens = output.find_tokenizer(where, context.recorded_tokenizer(where), tokenizer)
    stored = folder.source()
    if EMBEDDING not in stored.tensors:
        raise NemolaunchError(f"{folder.weights} has no {EMBEDDING}: it is no whole model")
    exported = _export(stored, family, config, hf_config, tokens)
    return dataclasses.replace(
        exported,
        both_sides=both_sides,
        generation=where / context.ARTIFACTS / context.GENERATION,
        changed=[
            *(["the optimizer's state is left behind"] if stored.training_state else []),
            *exported.changed,
        ],
    )


def prepare_export_like(stored: TensorSource, like: hf_folder.HfFolder) -> ModelConversion:
    """From the tensors of a NeMo model, without a context, to the Hugging Face model of the same configuration.

    Args:
        stored: has the tensors under NeMo's names, without a wrapper.
        like: has the configuration and the tokenizer.

    Raises `NemolaunchError` if NeMo has no form of that model, or the tensors are not its.
    """
    family = families.of_hf(like.config)
    text = dict(like.config.get("text_config") or like.config) if family.prefixes else like.config
    translated = family.to_nemo(text)
    config = NemoConfig(translated.model_class, translated.config_class, translated.fields)
    return _export(stored, family, config, family.to_hf(config), like.path)


def _export(
    stored: TensorSource, family: ModelFamily, config: NemoConfig, hf_config: dict[str, Any], tokens: Path
) -> ModelConversion:
    source = stored
    further = [name for name in stored.tensors if name.startswith("mtp.")]
    sizes = sizes_of(family, config.resolved)
    changed = []
    if HEAD in stored.tensors and _can_only_copy(family, config) and same_tensor(stored, HEAD, EMBEDDING):
        sizes = ModelSizes({**sizes.config, "share_embeddings_and_output_weights": True})
        hf_config["tie_word_embeddings"] = True
        further.append(HEAD)
        changed.append("the output layer equals the embedding: they are tied in the result")
    if further:
        source = Renamed(stored, {name: name for name in stored.tensors if name not in further})
    rows = stored.tensors[EMBEDDING].shape[0]
    vocabulary = _vocabulary(config, rows, tokens)
    if vocabulary < rows:
        source = FirstRows(source, {EMBEDDING, HEAD} & source.tensors.keys(), vocabulary)
        changed.append(
            f"the last {rows - vocabulary} of {rows} rows of the vocabulary are padding and left out"
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
        left_out=further,
        changed=changed,
    )


def _dtype(folder: hf_folder.HfFolder, family: ModelFamily, source: TensorSource) -> str:
    """The type of the model as a whole: that of its embedding, which the importer of NeMo takes from config.json."""
    stated = folder.dtype
    stored = source.tensors.get(family.hf_name(EMBEDDING))
    dtype = stated if stated in hf_folder.DTYPES else stored.dtype if stored else None
    if dtype not in hf_folder.DTYPES:
        raise NemolaunchError(
            f"{folder.path / 'config.json'}: the type of the weights ({dtype or 'not stated'}) is none of "
            f"{', '.join(hf_folder.DTYPES)}"
        )
    return str(dtype)


def _without_further_layers(
    family: ModelFamily, source: TensorSource, num_layers: int
) -> tuple[TensorSource, list[str]]:
    if not family.has_further_layers:
        return source, []
    further = [name for name in source.tensors if (m := LAYER.search(name)) and int(m[1]) >= num_layers]
    return Renamed(source, {name: name for name in source.tensors if name not in set(further)}), further


def _check_named(named: str, found: NemoConfig) -> None:
    """Compare the sizes of a configuration class that the user names with those of the source."""
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
            f"--model-config-name {named} does not fit the source, which has {', '.join(wrong)}. "
            "Leave it out to have the configuration read from the source."
        )


def _vocabulary(config: NemoConfig, rows: int, tokenizer: Path) -> int:
    """Rows of the vocabulary without Megatron's padding: what the configuration sets, else the tokenizer's tokens."""
    stated = config.resolved.get("vocab_size")
    if stated and stated <= rows:
        return int(stated)
    tokens = output.tokenizer_size(tokenizer)
    if tokens > rows:
        raise NemolaunchError(
            f"the tokenizer in {tokenizer} has {tokens:,} tokens, the embedding {rows:,} rows: it is not this model's"
        )
    return tokens


def _can_only_copy(family: ModelFamily, config: NemoConfig) -> bool:
    """Whether an output layer that equals the embedding may stand for a tied one."""
    tied = config.resolved.get("share_embeddings_and_output_weights")
    return not tied and family.copies_tied
