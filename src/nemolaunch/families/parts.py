"""Parts of a family's configuration, each of which translates some fields in both directions.

`to_nemo` reads a Hugging Face `config.json` and sets fields of NeMo's class; `to_hf` reads all of NeMo's fields
and sets those of `config.json`. A value that the other side cannot represent raises `UnsupportedValueError`, so that
nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nemolaunch.families.config_json import FULL, SLIDING, scaling_of
from nemolaunch.families.nemo_config import symbol, symbol_name

Fields = Mapping[str, Any]
Out = dict[str, Any]


class UnsupportedValueError(Exception):
    """A value that the other side cannot represent. The message says which."""


class ConfigPart(Protocol):
    """A translation of some fields in both directions."""

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""


@dataclass(frozen=True)
class Field:
    """The same value under two names. `default` is the value if `config.json` lacks the field; None if it must not."""

    hf: str
    nemo: str
    default: Any = None

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        if self.hf not in hf and self.default is None:
            raise UnsupportedValueError(f"{self.hf} is missing")
        value = hf.get(self.hf, self.default)
        if value is None:
            raise UnsupportedValueError(f"{self.hf} is null; it needs a value")
        nemo[self.nemo] = value

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        hf[self.hf] = nemo.get(self.nemo)


@dataclass(frozen=True)
class OptionalField(Field):
    """A field that may be missing or null, which means None on both sides."""

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        nemo[self.nemo] = hf.get(self.hf)


class HfIs:
    """A field of `config.json` that must have one of these values; the first is the default, and is written."""

    def __init__(self, name: str, *values: Any, written: bool = True) -> None:
        self.name, self.values, self.written = name, values, written

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        value = hf.get(self.name, self.values[0])
        if value not in self.values:
            raise UnsupportedValueError(f"{self.name} is {value!r}; NeMo's model has {self.values[0]!r}")

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        if self.written:
            hf[self.name] = self.values[0]


class NemoIs:
    """Fields of NeMo's configuration that must have these values, which are the defaults of its class."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        for name, wanted in self.values.items():
            value = nemo.get(name)
            if (symbol_name(value) or value) != (symbol_name(wanted) or wanted):
                raise UnsupportedValueError(f"{name} is {value!r}; the Hugging Face model has {wanted!r}")


class NemoSet:
    """Fields of NeMo's configuration with fixed values, which are not the defaults of its class."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        nemo.update(self.values)

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        NemoIs(**self.values).to_hf(nemo, hf)


@dataclass(frozen=True)
class FieldFunctions:
    """Any other translation: a function for each direction."""

    forward: Callable[[Fields, Out], None]
    back: Callable[[Fields, Out], None]

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        self.forward(hf, nemo)

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        self.back(nemo, hf)


def _derived_heads(head_dim: int | None) -> ConfigPart:
    """Translate the numbers of query and key/value heads and the head width, with each side's defaults."""

    def to_nemo(hf: Fields, nemo: Out) -> None:
        heads = hf["num_attention_heads"]
        nemo["num_attention_heads"] = heads
        nemo["num_query_groups"] = hf.get("num_key_value_heads") or heads
        nemo["kv_channels"] = hf.get("head_dim") or head_dim or hf["hidden_size"] // heads

    def to_hf(nemo: Fields, hf: Out) -> None:
        heads = nemo["num_attention_heads"]
        hf["num_attention_heads"] = heads
        hf["num_key_value_heads"] = nemo.get("num_query_groups") or heads
        hf["head_dim"] = nemo.get("kv_channels") or nemo["hidden_size"] // heads

    return FieldFunctions(to_nemo, to_hf)


def sizes(
    *,
    norm: str = "rms_norm_eps",
    norm_default: float = 1e-6,
    rope_theta: float = 10000.0,
    head_dim: int | None = None,
    without: Collection[str] = (),
) -> tuple[ConfigPart, ...]:
    """Return the fields that nearly all families name alike.

    Args:
        norm: the family's name for the epsilon of norms.
        norm_default, rope_theta, head_dim: the values if `config.json` lacks these fields.
        without: fields of `config.json` to omit.
    """
    fields = (
        Field("num_hidden_layers", "num_layers"),
        Field("hidden_size", "hidden_size"),
        Field("intermediate_size", "ffn_hidden_size"),
        Field("vocab_size", "vocab_size"),
        Field("max_position_embeddings", "seq_length"),
        Field("initializer_range", "init_method_std", 0.02),
        Field(norm, "layernorm_epsilon", norm_default),
        Field("rope_theta", "rotary_base", rope_theta),
        Field("attention_dropout", "attention_dropout", 0.0),
    )
    return (*(field for field in fields if field.hf not in without), _derived_heads(head_dim))


def tied(default: bool = False) -> ConfigPart:
    """Return the field that ties the output layer to the embedding; `default` is transformers'."""
    return Field("tie_word_embeddings", "share_embeddings_and_output_weights", default)


def _longest_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["max_position_embeddings"] = hf["max_position_embeddings"]


# Some of NeMo's classes have the maximum sequence length twice; the other field is the one that is used
LONGEST_TWICE = FieldFunctions(_longest_to_nemo, lambda nemo, hf: None)


class NeverTied:
    """Embeddings that NeMo's converters do not tie: the output layer is a copy of the embedding instead."""

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        hf.get("tie_word_embeddings")
        nemo["share_embeddings_and_output_weights"] = False

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        hf["tie_word_embeddings"] = bool(nemo.get("share_embeddings_and_output_weights"))


class Derived:
    """A field that follows from others, and that only some versions of transformers write. It must agree."""

    def __init__(self, name: str, value: Callable[[Fields], Any]) -> None:
        self.name, self.value = name, value

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Check the field, if there is one."""
        stated, wanted = hf.get(self.name), self.value(hf)
        if stated is not None and stated != wanted:
            raise UnsupportedValueError(f"{self.name} is {stated!r}; NeMo's model has {wanted!r}")

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set nothing: the model's class derives it again."""


def same_dropout(embedding: str, residual: str) -> ConfigPart:
    """Return the check that the embeddings have the dropout of the residual stream, as in Megatron."""
    check = Derived(embedding, lambda hf: hf.get(residual, 0.0))
    return FieldFunctions(check.to_nemo, lambda nemo, hf: hf.update({embedding: hf[residual]}))


def _full_rotary_to_nemo(hf: Fields, nemo: Out) -> None:
    HfIs("partial_rotary_factor", 1.0, None).to_nemo(hf, nemo)


def _full_rotary_to_hf(nemo: Fields, hf: Out) -> None:
    NemoIs(rotary_percent=1.0).to_hf(nemo, hf)


def _no_window_to_nemo(hf: Fields, nemo: Out) -> None:
    layers = hf.get("num_hidden_layers") or 0
    Derived("layer_types", lambda hf: [FULL] * layers).to_nemo(hf, nemo)


def _no_window_to_hf(nemo: Fields, hf: Out) -> None:
    NemoIs(window_size=None).to_hf(nemo, hf)


NO_WINDOW = FieldFunctions(_no_window_to_nemo, _no_window_to_hf)
FULL_ROTARY = FieldFunctions(_full_rotary_to_nemo, _full_rotary_to_hf)

# A decoder with RMSNorm, SiLU-gated MLPs and rotary positions
GATED = (
    HfIs("hidden_act", "silu"),
    NemoIs(
        activation_func="silu",
        gated_linear_unit=True,
        normalization="RMSNorm",
        position_embedding_type="rope",
        layernorm_zero_centered_gamma=False,
        rotary_interleaved=False,
        multi_latent_attention=False,
    ),
)
# The same, set on a class of Bridge's, which has other defaults
GATED_LAYERS = NemoSet(
    activation_func=symbol("torch.nn.functional.silu"),
    gated_linear_unit=True,
    normalization="RMSNorm",
    position_embedding_type="rope",
    add_bias_linear=False,
    hidden_dropout=0.0,
)
DENSE = NemoIs(num_moe_experts=None)
NO_BIAS = NemoIs(add_bias_linear=False, add_qkv_bias=False)
NO_QK_NORM = NemoIs(qk_layernorm=False)


def dense_first_to_nemo(hf: Fields) -> list[int]:
    """Return `moe_layer_freq` of a model whose first layers are dense."""
    layers, dense = hf["num_hidden_layers"], hf.get("first_k_dense_replace", 0)
    return [0] * dense + [1] * (layers - dense)


def dense_first_to_hf(nemo: Fields) -> dict[str, int]:
    """Return how many layers at the start are dense; raise UnsupportedValueError if others are."""
    frequency = nemo["moe_layer_freq"]
    pattern = list(frequency) if isinstance(frequency, list | tuple) else [1] * nemo["num_layers"]
    dense = pattern.index(1) if 1 in pattern else len(pattern)
    if pattern != [0] * dense + [1] * (len(pattern) - dense) or (frequency != 1 and frequency != pattern):
        raise UnsupportedValueError(
            f"moe_layer_freq is {frequency}; the Hugging Face model can have dense layers only at the start"
        )
    return {"first_k_dense_replace": dense}


def alternating(layers: int, every: int) -> list[str]:
    """Return the `layer_types` of a model with full attention in every n-th layer, and a window in the others."""
    return [FULL if (layer + 1) % every == 0 else SLIDING for layer in range(layers)]


@dataclass(frozen=True)
class SlidingWindow:
    """One sliding window for all layers, or none.

    Hugging Face counts the query's own position, Transformer Engine does not. A window as long as the longest
    sequence has no effect.

    Attributes:
        default: the window if `config.json` has no `sliding_window`; null means none.
        switch: the field without which there is no window.
        first: the field with the first layer that has one.
    """

    default: int | None = None
    switch: str | None = None
    first: str | None = None

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        layers, longest = hf["num_hidden_layers"], hf.get("max_position_embeddings")
        window = hf.get("sliding_window", self.default)
        used = hf.get(self.switch, False) if self.switch else True
        first = (hf.get(self.first) or 0) if self.first else 0
        listed = hf.get("layer_types")
        kinds = listed or [SLIDING if layer >= first else FULL for layer in range(layers)]
        windowed = [layer for layer, kind in enumerate(kinds) if kind == SLIDING]
        if {*kinds} - {FULL, SLIDING} or (listed and windowed and not (window and used)):
            raise UnsupportedValueError(
                f"layer_types is {listed} with sliding_window {window}; NeMo's model has a window in all layers or "
                "in none"
            )
        nemo["window_size"] = None
        if window and used and windowed and not (longest and window >= longest):
            if len(windowed) < layers:
                raise UnsupportedValueError(
                    f"only the layers {windowed} have a sliding window; NeMo's model has it in all layers or in none"
                )
            nemo["window_size"] = [window - 1, 0]

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        window = nemo.get("window_size")
        if window and nemo.get("window_attn_skip_freq"):
            raise UnsupportedValueError(
                "window_attn_skip_freq is set; the Hugging Face model has the window in every layer"
            )
        hf["sliding_window"] = window[0] + 1 if window else None
        if self.switch:
            hf[self.switch] = bool(window)
        if self.first and window:
            hf[self.first] = 0


def rope_scaling_of(hf: Fields) -> tuple[str | None, Fields]:
    """Return the type and the values of `rope_scaling`; the type is None if there is no scaling.

    Raises UnsupportedValueError for a value that is not known to have no effect, or is not a number.
    """
    scaling = scaling_of(hf.get("rope_scaling"))
    if scaling is None:
        return None, {}
    kind, values = scaling
    known = ROPE_FIELDS.get(kind)
    unknown = sorted({name for name, value in values.items() if value is not None} - known) if known else []
    if unknown:
        raise UnsupportedValueError(
            f"rope_scaling of type {kind!r} has {', '.join(f'{name} = {values[name]!r}' for name in unknown)}, "
            "which NeMo's model cannot represent"
        )
    return kind, values


# The values of each type of rope_scaling that are translated. Linear scaling ignores the original length
ROPE_FIELDS = {
    "linear": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    },
}  # fmt: skip


def _linear_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind == "linear":
        nemo["seq_len_interpolation_factor"] = float(scaling["factor"])
    elif kind is not None:
        raise UnsupportedValueError(
            f"rope_scaling is of type {kind!r}; NeMo's model supports 'linear' or none"
        )


def _linear_to_hf(nemo: Fields, hf: Out) -> None:
    factor = nemo.get("seq_len_interpolation_factor")
    hf["rope_scaling"] = {"rope_type": "linear", "factor": float(factor)} if factor else None


OTHER_ROPE = "rope_scaling of types other than linear"
# Rotary positions as they are, or all divided by one factor
LINEAR_SCALING = FieldFunctions(_linear_to_nemo, _linear_to_hf)
