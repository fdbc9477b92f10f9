"""What a Hugging Face `config.json` says, whichever version of transformers wrote it.

Transformers 5 keeps rotary positions in `rope_parameters`, and renames some fields; transformers 4 and the models'
own code do not know these names. A key that is absent has the default of the model's class in transformers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.absurd import absurd_size

DEFAULTS = Path(__file__).with_name("hf_defaults.json")

# Keys of any model that do not change what its layers compute from the same weights: how tokens are named, how it is
# run, generated with, stored and labelled.
HARMLESS = frozenset(
    """
    model_type architectures transformers_version torch_dtype dtype auto_map _name_or_path _commit_hash
    name_or_path use_cache cache_implementation attn_implementation _attn_implementation
    _attn_implementation_autoset _attn_implementation_internal use_flash_attn use_flash_attention
    attention_softmax_in_fp32 residual_in_fp32 torchscript use_bfloat16 tf_legacy_loss gradient_checkpointing
    return_dict output_attentions output_hidden_states output_router_logits
    quantization_config compression_config unsloth_version unsloth_fixed model_max_length _from_model_config
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id
    bos_token eos_token pad_token tokenizer_class prefix suppress_tokens begin_suppress_tokens
    id2label label2id num_labels finetuning_task task_specific_params problem_type
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k
    top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty num_logits_to_keep
    is_llama_config transformers.js_config chunk_size_feed_forward pretraining_tp ep_size
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj classifier_dropout
    """.split()
)
# Names of transformers 5 -> those of transformers 4, by model_type
RENAMED = {
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
FULL, SLIDING = "full_attention", "sliding_attention"


class ReadFields(Mapping[str, Any]):
    """Fields that remember which of them were read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    return dict(json.loads(DEFAULTS.read_text(encoding="utf-8"))["defaults"])


def default_of(model_type: str, name: str) -> Any:
    """Return what a `config.json` of a model type means by leaving a key out; None if that is not known."""
    return _defaults().get(model_type, {}).get(name)


def language_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a `config.json` that describes the language model: `text_config`, or all of it."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return dict(config)
    outer = {name: config[name] for name in ("tie_word_embeddings", "dtype", "torch_dtype") if name in config}
    kind = {"model_type": config.get("model_type")}
    return {**kind, **outer, **text}


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `config.json` with the names of transformers 4, for transformers 4 to load. Absent keys stay absent.

    Raises:
        NemolaunchError: it says two things about rotary positions, or something that transformers 4 cannot say.
    """
    fields = _with_old_names(config)
    for name, part in config.items():
        if name == "text_config" and isinstance(part, Mapping):
            fields[name] = _with_old_names(part)
    return fields


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every field of the language model in a `config.json`, with transformers 4's names and defaults.

    Raises `NemolaunchError` like `canonical`.
    """
    fields = _with_old_names(language_model(config))
    return {**_defaults().get(str(fields.get("model_type")), {}), **fields}


def _with_old_names(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(config)
    fault = absurd_size(fields)
    if fault:
        raise NemolaunchError(f"config.json: {fault}")
    for new, old in RENAMED.get(str(config.get("model_type")), {}).items():
        if new in fields:
            _set(fields, old, fields.pop(new), new)
    if "layers_block_type" in fields and config.get("model_type") == "nemotron_h":
        pattern = _pattern(fields.pop("layers_block_type"))
        _set(fields, "hybrid_override_pattern", pattern, "layers_block_type")
        fields.setdefault("num_hidden_layers", len(pattern))
    rope = fields.pop("rope_parameters", None)
    if rope is not None:
        if not isinstance(rope, Mapping):
            raise NemolaunchError(f"config.json: rope_parameters is {rope!r}; it must be an object")
        _set_rope(fields, rope)
    scaling = fields.get("rope_scaling")
    if isinstance(scaling, Mapping) and "rope_theta" in scaling:
        _set(fields, "rope_theta", scaling["rope_theta"], "rope_scaling.rope_theta")
        fields["rope_scaling"] = {name: value for name, value in scaling.items() if name != "rope_theta"}
    if isinstance(fields.get("rope_scaling"), Mapping) and scaling_of(fields["rope_scaling"]) is None:
        fields["rope_scaling"] = None
    return fields


LETTERS = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}


def _pattern(kinds: Any) -> str:
    try:
        return "".join(LETTERS[kind] for kind in kinds)
    except (KeyError, TypeError):
        raise NemolaunchError(
            f"config.json: layers_block_type is {kinds!r}; it must list {', '.join(LETTERS)}"
        ) from None


def _of_full_attention(fields: dict[str, Any], rope: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of full attention, if there is a part for each layer type; that of windows is set."""
    if any(isinstance(part, Mapping) for part in rope.values()):
        kinds = {str(kind): part for kind, part in rope.items() if isinstance(part, Mapping)}
        others = sorted({*rope} - {*kinds})
        if others or not {*kinds} <= {FULL, SLIDING} or FULL not in kinds:
            raise NemolaunchError(
                f"config.json: rope_parameters has {', '.join([*others, *kinds])}; known are the values of all layers, "
                f"or {FULL} and {SLIDING}"
            )
        local = dict(kinds.get(SLIDING, kinds[FULL]))
        if fields.get("model_type") in ("gemma3", "gemma3_text"):
            theta = local.pop("rope_theta", None)
            if local.pop("rope_type", "default") != "default" or local:
                raise NemolaunchError(
                    f"config.json: rope_parameters.{SLIDING} is {dict(kinds[SLIDING])}; layers with a window can "
                    "only have the default type and a rope_theta"
                )
            if theta is not None:
                _set(fields, "rope_local_base_freq", theta, f"rope_parameters.{SLIDING}.rope_theta")
        elif local != dict(kinds[FULL]):
            raise NemolaunchError(
                f"config.json: rope_parameters differ between {FULL} and {SLIDING}, which NeMo's model cannot "
                "represent"
            )
        return kinds[FULL]
    return rope


def _set_rope(fields: dict[str, Any], rope: Mapping[str, Any]) -> None:
    rest = dict(_of_full_attention(fields, rope))
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rest:
            _set(fields, name, rest.pop(name), f"rope_parameters.{name}")
    scaling = rest if scaling_of(rest) else None
    unused = sorted({*rest} - {"rope_type", "type"}) if scaling is None else []
    if unused:
        raise NemolaunchError(
            f"config.json: rope_parameters has {', '.join(unused)} without a rope_type that uses it"
        )
    _set(fields, "rope_scaling", scaling, "rope_parameters")


def _set(fields: dict[str, Any], name: str, value: Any, origin: str) -> None:
    """Set a field, unless the file also has it under its old name with another value."""
    had = fields.get(name)
    same_scaling = (
        name == "rope_scaling" and isinstance(had, Mapping) and scaling_of(had) == scaling_of(value)
    )
    if had is not None and had != value and not same_scaling:
        raise NemolaunchError(
            f"config.json contradicts itself: {name} is {had!r}, but {origin} says {value!r}; remove one of them"
        )
    fields[name] = value


def scaling_of(value: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
    """Return the type and the values of a `rope_scaling`, however it is spelled; None if there is no scaling."""
    value = value or {}
    kind = value.get("rope_type") or value.get("type")
    rest = {name: item for name, item in value.items() if name not in ("rope_type", "type", "rope_theta")}
    return None if kind in (None, "default") else (str(kind), rest)
