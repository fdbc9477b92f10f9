"""Model families: how one kind of Hugging Face model corresponds to a NeMo model."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.config_json import HARMLESS, ReadFields, default_of, described
from nemolaunch.families.nemo_config import NemoConfig, bridge_classes, symbol
from nemolaunch.families.parts import ConfigPart, Fields, Out, UnsupportedValueError
from nemolaunch.families.rules import Rule

ConfigClass = str | Callable[[Fields], str]


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """The conversion of one Hugging Face `model_type`.

    Attributes:
        model_type, architecture: as in `config.json`.
        model_class: the NeMo class; of models that only Megatron-Bridge has, that of transformers.
        config_class: the NeMo configuration class, or a function of the `config.json` that returns it; or Bridge's.
        also: other NeMo classes for the same models, with their configuration classes.
        parts: how the fields of the configuration are translated.
        rules: how the names of the tensors correspond.
        traits: what the model's parameters depend on besides NeMo's fields.
        prefixes: possible prefixes of the language model's tensors when it is part of a larger model.
        copies_tied: whether NeMo's converters cannot tie embeddings, and copy the embedding to the output layer.
        ignored: keys of `config.json` that do not change what the layers compute, besides those of any model.
        has_extra_layers: whether layers for multi-token prediction may follow the last one; they are omitted.
        remote_code: whether transformers has no class for it.
        refused: which models of the family NeMo's class cannot represent, in words.
        caveat: what a conversion does not preserve, or what NeMo's model computes differently.
        computes_differently: a function of NeMo's fields that returns why NeMo's model does not compute the same as
            Hugging Face's with the same weights; None if it does.
    """

    model_type: str
    architecture: str
    model_class: str
    config_class: ConfigClass
    parts: tuple[ConfigPart, ...]
    rules: tuple[Rule, ...]
    also: Mapping[str, ConfigClass] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    copies_tied: bool = False
    ignored: tuple[str, ...] = ()
    has_extra_layers: bool = False
    remote_code: bool = False
    refused: str | None = None
    caveat: str | None = None
    computes_differently: Callable[[Fields], str | None] = lambda nemo: None

    @property
    def tied_by_default(self) -> bool:
        """Whether a `config.json` without `tie_word_embeddings` ties the output layer to the embedding."""
        return bool(default_of(self.model_type, "tie_word_embeddings"))

    def to_nemo(self, hf: Fields, model_class: str | None = None) -> NemoConfig:
        """Return NeMo's configuration for a `config.json`, whichever version of transformers wrote it.

        Raises `NemolaunchError` with every field that it cannot represent, or does not know.
        """
        fields: Out = {}
        known = ReadFields(described(hf))
        faults = self._faults(lambda part: part.to_nemo(known, fields))
        unknown = [name for name in known if name not in known.read | HARMLESS and name not in self.ignored]
        listed = [f"{name} = {reprlib.repr(known[name])}" for name in unknown if known[name] is not None]
        if listed:
            faults.append(
                f"  its config.json has {', '.join(listed)}, not known for this model_type; remove from it what does "
                "not change what the model computes"
            )
        self._refuse(faults, "NeMo")
        model_class = model_class or self.model_class
        chosen = self.also.get(model_class, self.config_class)
        return NemoConfig(model_class, chosen if isinstance(chosen, str) else chosen(known), fields)

    def to_hf(self, nemo: NemoConfig) -> dict[str, Any]:
        """Return the `config.json` for a NeMo configuration, without the dtype of the weights.

        Raises `NemolaunchError` with every field that it cannot represent.
        """
        hf: Out = {"architectures": [self.architecture], "model_type": self.model_type}
        resolved = nemo.resolved
        self._refuse(self._faults(lambda part: part.to_hf(resolved, hf)), "Hugging Face")
        return hf

    def fields_read(self, nemo: NemoConfig) -> set[str]:
        """Return the fields of NeMo's configuration that decide about `config.json`, or are checked for it."""
        known = ReadFields(nemo.resolved)
        hf: Out = {}
        self._faults(lambda part: part.to_hf(known, hf))
        return known.read

    @property
    def only_in_bridge(self) -> bool:
        """Whether NeMo 2 has no such models."""
        return self.config_class in bridge_classes()

    def hf_name(self, parameter: str) -> str:
        """Return the Hugging Face name of a parameter that is not in a layer."""
        return next(rule.hf[0] for rule in self.rules if rule.nemo == (parameter,))

    def _faults(self, one: Callable[[ConfigPart], None]) -> list[str]:
        faults = []
        for part in self.parts:
            try:
                one(part)
            except UnsupportedValueError as error:
                faults.append(f"  {error}")
            except KeyError as error:
                faults.append(f"  {error.args[0]} is missing")
            except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
                faults.append(f"  a value is of the wrong type or size: {error}")
        return faults

    def _refuse(self, faults: list[str], side: str) -> None:
        if faults:
            raise NemolaunchError(
                f"{side}'s {self.model_type} ({self.model_class}) cannot represent this model:\n"
                + "\n".join(faults)
            )


def precision_fields(dtype: str) -> dict[str, Any]:
    """Return NeMo's fields for weights of a dtype."""
    return {"params_dtype": symbol(f"torch.{dtype}"), "fp16": dtype == "float16", "bf16": dtype == "bfloat16"}


def by_model_type(families: Iterable[ModelFamily]) -> dict[str, ModelFamily]:
    """Return families by their `model_type`."""
    return {family.model_type: family for family in families}
