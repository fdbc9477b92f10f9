"""How a model that only Megatron-Bridge has is described."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nemolaunch.catalogue.bridge_models import GPT

BRIDGE = "megatron.bridge.models"
MLA = f"{BRIDGE}.mla_provider.MLAModelProvider"
HYBRID = f"{BRIDGE}.hybrid.hybrid_provider.HybridModelProvider"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where one model is described.

    Attributes:
        config: the name of the configuration class.
        module: where that class is; None if neither transformers nor Bridge has it, and `values` are all there is.
        values: what the model has otherwise than that class's defaults.
        provider: the class of Bridge's configuration.
        settings: fields of that class that Bridge's recipe of the model sets, beyond its translation.
        layers: the function that describes its layers, if it is not what Bridge's translation names.
        whole: the provider's defaults are the model, and Bridge translates no other configuration.
        last_stage: layers of the last stage of the catalogue's pipeline layout, which do not divide evenly.
    """

    config: str
    module: str | None = "transformers"
    values: dict[str, Any] = field(default_factory=dict)
    provider: str = GPT
    settings: dict[str, Any] = field(default_factory=dict)
    layers: str | None = None
    whole: bool = False
    last_stage: int | None = None


def rope(base: float, **more: Any) -> dict[str, Any]:
    """Return the part of a configuration that says how positions are rotated."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, **more}}
