"""A family of models: how one kind of Hugging Face model is a NeMo model, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.checkpoint.families.nemo_config import NemoConfig, symbol
from nemolaunch.checkpoint.families.parts import ConfigPart, Fields, Out, UnsupportedValueError
from nemolaunch.checkpoint.families.rules import Rule
from nemolaunch.errors import NemolaunchError

ConfigClass = str | Callable[[Fields], str]


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """One `model_type` of Hugging Face's.

    Attributes:
        model_type, architecture: as in `config.json`.
        model_class: NeMo's class.
        config_class: NeMo's configuration class, by a function where it depends on the `config.json`.
        also: other classes of NeMo's for the same models, with their configuration classes.
        parts: the configuration's fields.
        rules: the tensors' names.
        traits: what the model's parameters depend on besides NeMo's fields.
        prefixes: put before the language model's names where it is part of a larger one.
        tied_by_default: what a `config.json` without `tie_word_embeddings` means.
        copies_tied: NeMo's converters know no tied form; a tied output layer is a copy of the embedding.
        has_further_layers: layers after the last one are for predicting further tokens, and left out.
        remote_code: transformers has no class of its own for it.
        refused: models of the family that NeMo's class cannot hold, in words.
        caveat: what a conversion does not keep, or what NeMo's model computes otherwise.
        computes_otherwise: why NeMo's model of a configuration does not compute what Hugging Face's does, though
            every weight is the same; None where it does.
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
    tied_by_default: bool = False
    copies_tied: bool = False
    has_further_layers: bool = False
    remote_code: bool = False
    refused: str | None = None
    caveat: str | None = None
    computes_otherwise: Callable[[Fields], str | None] = lambda nemo: None

    def to_nemo(self, hf: Fields, model_class: str | None = None) -> NemoConfig:
        """NeMo's configuration for a `config.json`.

        Raises `NemolaunchError` with every field that it cannot hold.
        """
        fields: Out = {}
        self._translate(lambda part: part.to_nemo(hf, fields), "NeMo")
        model_class = model_class or self.model_class
        chosen = self.also.get(model_class, self.config_class)
        return NemoConfig(model_class, chosen if isinstance(chosen, str) else chosen(hf), fields)

    def to_hf(self, nemo: NemoConfig) -> dict[str, Any]:
        """The `config.json` for a NeMo configuration, but for the type of the weights.

        Raises `NemolaunchError` with every field that it cannot hold.
        """
        hf: Out = {"architectures": [self.architecture], "model_type": self.model_type}
        resolved = nemo.resolved
        self._translate(lambda part: part.to_hf(resolved, hf), "Hugging Face")
        return hf

    def hf_name(self, parameter: str) -> str:
        """The Hugging Face name of a parameter that has no layer."""
        return next(rule.hf[0] for rule in self.rules if rule.nemo == (parameter,))

    def _translate(self, one: Callable[[ConfigPart], None], side: str) -> None:
        faults = []
        for part in self.parts:
            try:
                one(part)
            except UnsupportedValueError as error:
                faults.append(f"  {error}")
            except KeyError as error:
                faults.append(f"  {error.args[0]} is not stated")
        if faults:
            raise NemolaunchError(
                f"{side}'s form of {self.model_type} ({self.model_class}) cannot hold this model:\n"
                + "\n".join(faults)
            )


def precision_fields(dtype: str) -> dict[str, Any]:
    """NeMo's fields for weights of a type."""
    return {"params_dtype": symbol(f"torch.{dtype}"), "fp16": dtype == "float16", "bf16": dtype == "bfloat16"}


def by_model_type(families: Iterable[ModelFamily]) -> dict[str, ModelFamily]:
    """A table of families."""
    return {family.model_type: family for family in families}
