"""Pieces of a family's configuration, each of which translates some fields both ways.

`to_nemo` reads a Hugging Face `config.json` and sets fields of NeMo's class; `to_hf` reads all of NeMo's fields
and sets those of `config.json`. A value that the other side cannot hold raises `UnsupportedValueError`: nothing is
dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nemolaunch.checkpoint.families.nemo_config import symbol_name

Fields = Mapping[str, Any]
Out = dict[str, Any]


class UnsupportedValueError(Exception):
    """The other side has no place for a value. The message says for which."""


class ConfigPart(Protocol):
    def to_nemo(self, hf: Fields, nemo: Out) -> None: ...

    def to_hf(self, nemo: Fields, hf: Out) -> None: ...


@dataclass(frozen=True)
class Field:
    """The same value under two names. `default` is what a `config.json` without the field means, if anything."""

    hf: str
    nemo: str
    default: Any = None

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        if self.hf not in hf and self.default is None:
            raise UnsupportedValueError(f"{self.hf} is not stated")
        nemo[self.nemo] = hf.get(self.hf, self.default)

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        hf[self.hf] = nemo.get(self.nemo)


@dataclass(frozen=True)
class OptionalField(Field):
    """A field that may be missing, which is the same as None on both sides."""

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        nemo[self.nemo] = hf.get(self.hf)


class HfIs:
    """A field of `config.json` that must have one of these values; the first is written, and is the default."""

    def __init__(self, name: str, *values: Any, written: bool = True) -> None:
        self.name, self.values, self.written = name, values, written

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        value = hf.get(self.name, self.values[0])
        if value not in self.values:
            raise UnsupportedValueError(f"{self.name} is {value!r}; NeMo's model has {self.values[0]!r}")

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        if self.written:
            hf[self.name] = self.values[0]


class NemoIs:
    """Fields of NeMo's configuration that must have these values, which are its class's defaults."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_nemo(self, hf: Fields, nemo: Out) -> None: ...

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        for name, wanted in self.values.items():
            value = nemo.get(name)
            if (symbol_name(value) or value) != wanted:
                raise UnsupportedValueError(f"{name} is {value!r}; the Hugging Face model has {wanted!r}")


class NemoSet:
    """Fields of NeMo's configuration with fixed values, which are not its class's defaults."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        nemo.update(self.values)

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        NemoIs(**self.values).to_hf(nemo, hf)


@dataclass(frozen=True)
class FieldFunctions:
    """Anything else: a function for each way."""

    forward: Callable[[Fields, Out], None]
    back: Callable[[Fields, Out], None]

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        self.forward(hf, nemo)

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        self.back(nemo, hf)


def _derived_heads(head_dim: int | None) -> ConfigPart:
    """Query heads, key/value heads and the width of one, with what either side means by none."""

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
    """The fields that nearly every family names alike.

    Args:
        norm: how the family names the norms' epsilon.
        norm_default, rope_theta, head_dim: what a `config.json` without these fields means.
        without: fields of `config.json` to leave out.
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
    """Whether the output layer is the embedding; `default` is transformers'."""
    return Field("tie_word_embeddings", "share_embeddings_and_output_weights", default)


def _longest_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["max_position_embeddings"] = hf["max_position_embeddings"]


# Some of NeMo's classes have the longest sequence twice; the other field is the one in use
LONGEST_TWICE = FieldFunctions(_longest_to_nemo, lambda nemo, hf: None)


class NeverTied:
    """NeMo's converters of some families know no tied form: the output layer is then a copy of the embedding."""

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        nemo["share_embeddings_and_output_weights"] = False

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        hf["tie_word_embeddings"] = bool(nemo.get("share_embeddings_and_output_weights"))


# A decoder of RMSNorm, SiLU-gated MLPs and rotary positions, without biases or windows
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
DENSE = NemoIs(num_moe_experts=None)
NO_BIAS = NemoIs(add_bias_linear=False, add_qkv_bias=False)
NO_QK_NORM = NemoIs(qk_layernorm=False)
FULL_ROTARY = NemoIs(rotary_percent=1.0)
NO_WINDOW = NemoIs(window_size=None)


class SlidingWindow:
    """One sliding window for all layers, as Transformer Engine counts it: the keys before the query's own.

    Hugging Face counts the own one too. A window as long as the longest sequence is none.
    """

    def __init__(self, *, default: int | None = None, switch: str | None = None) -> None:
        self.default, self.switch = default, switch

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        window = hf.get("sliding_window", self.default)
        used = hf.get(self.switch, False) if self.switch else True
        longest = hf.get("max_position_embeddings")
        nemo["window_size"] = None
        if window and used and not (longest and window >= longest):
            nemo["window_size"] = [window - 1, 0]

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        window = nemo.get("window_size")
        if window and nemo.get("window_attn_skip_freq"):
            raise UnsupportedValueError(
                "window_attn_skip_freq is set; the Hugging Face model has the window in every layer"
            )
        hf["sliding_window"] = window[0] + 1 if window else None
        if self.switch:
            hf[self.switch] = bool(window)


class PartialSlidingWindow(SlidingWindow):
    """As `SlidingWindow`, where `config.json` may give the window to only the layers from `max_window_layers` on."""

    def __init__(self) -> None:
        super().__init__(switch="use_sliding_window")

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        layers, first = hf["num_hidden_layers"], hf.get("max_window_layers", 0)
        if first >= layers:
            nemo["window_size"] = None
            return
        super().to_nemo(hf, nemo)
        if nemo["window_size"] and first:
            raise UnsupportedValueError(
                f"only the layers from {first} on have a sliding window; NeMo's model has it in all or none"
            )

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        super().to_hf(nemo, hf)
        if hf["sliding_window"]:
            hf["max_window_layers"] = 0


def rope_scaling_of(hf: Fields) -> tuple[str | None, Fields]:
    """Kind and values of `rope_scaling`; its kind is None where there is none."""
    scaling = hf.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    return (None if kind == "default" else kind), scaling


def _no_scaling(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind == "linear":
        nemo["seq_len_interpolation_factor"] = float(scaling["factor"])
    elif kind is not None:
        raise UnsupportedValueError(
            f"rope_scaling is of type {kind!r}; NeMo's model has none, or a linear one"
        )


def _linear_back(nemo: Fields, hf: Out) -> None:
    factor = nemo.get("seq_len_interpolation_factor")
    hf["rope_scaling"] = {"rope_type": "linear", "factor": float(factor)} if factor else None


OTHER_ROPE = "rope_scaling of types other than linear"
# Rotary positions as they are, or all divided by one factor.
LINEAR_SCALING = FieldFunctions(_no_scaling, _linear_back)
