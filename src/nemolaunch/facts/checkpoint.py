"""Inspect a checkpoint folder before a launch. Reads its description and what its pickles name, no tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts import bridge_run_config
from nemolaunch.facts.bridge_model import BIDIRECTIONAL, model_in
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.facts.saved_values import SavedRun, saved_run
from nemolaunch.families.bridge_classes import PLAIN
from nemolaunch.families.computed_fields import plain_fields
from nemolaunch.families.nemo_config import BIDIRECTIONAL_LAYERS, NemoConfig, defaults, symbol_path
from nemolaunch.families.registry import of_nemo
from nemolaunch.run.folder import (
    BRIDGE_CONFIG,
    BRIDGE_TRACKER,
    RunDir,
    is_bridge,
    newest_of_bridge,
    step_of,
    unfinished,
)
from nemolaunch.system.path_hints import missing_part, nearest
from nemolaunch.trust.checkpoint import checkpoint_fault

# Fields that must match between a checkpoint and the job that starts from it
SHAPE_FIELDS = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "kv_channels",
    "vocab_size",
    "num_moe_experts",
    "moe_ffn_hidden_size",
    "multi_latent_attention",
    "hybrid_override_pattern",
)


@dataclass(frozen=True, kw_only=True)
class StartPoint:
    """A checkpoint that a job names.

    Attributes:
        path: as given, made absolute.
        error: why it cannot be used, as a clause that follows the path; or None.
        instead: the checkpoint that was probably meant.
        backend: `nemo2` or `bridge`, which wrote it.
        model_class: name of NeMo's model class, without its module; None if not recorded. Bridge does not record it: it
            is that of one of the families which the model can be.
        both_sides: whether the model is bidirectional; None if not recorded.
        config_class: name of NeMo's configuration class; None if not recorded.
        shape: those of `SHAPE_FIELDS` that are recorded and not null.
        fields: what its configuration says about what the model computes; see `plain_fields`.
        step: optimizer steps done when it was saved, by its name.
        saved: what the plan of the run it lies in says it was trained with.
    """

    path: str
    error: str | None = None
    instead: str | None = None
    backend: str = "nemo2"
    model_class: str | None = None
    config_class: str | None = None
    both_sides: bool | None = None
    shape: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    saved: SavedRun = field(default_factory=SavedRun)


def look_at_checkpoint(path: str, *, trusted: bool = False) -> StartPoint:
    """Inspect the checkpoint in a folder. Never raises: problems are reported in `error`.

    Unless it is `trusted`, one that names what NeMo's own do not is such a problem.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    if is_of_bridge(folder):
        return _look_at_bridge(folder, trusted)
    try:
        fault = _fault(folder) or (None if trusted else checkpoint_fault(folder))
        instead = _instead(path, folder) if fault else None
    except (OSError, ValueError) as error:
        return StartPoint(path=str(folder), error=f"it cannot be read: {error}")
    if fault:
        return StartPoint(path=str(folder), error=fault, instead=instead)
    content = _yaml(folder / "context" / "model.yaml")
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    shape = {name: config[name] for name in SHAPE_FIELDS if config.get(name) is not None}
    heads = shape.get("num_attention_heads")
    if heads is not None:  # Megatron's own defaults, filled in when the model is built
        shape.setdefault("num_query_groups", heads)
    config_class = _class_name(config)
    return StartPoint(
        path=str(folder),
        model_class=_class_name(content),
        config_class=config_class,
        both_sides=_both_sides(config, BIDIRECTIONAL_LAYERS),
        shape=shape,
        fields=plain_fields({**defaults(config_class or ""), **config}) if config else {},
        step=max(0, step_of(folder) + 1),
        saved=saved_run(RunDir(folder.resolve().parent.parent)),
    )


def is_of_bridge(folder: Path) -> bool:
    """Return whether a folder is a checkpoint of Megatron-Bridge, or one with such checkpoints."""
    return (folder / BRIDGE_CONFIG).is_file() or (folder / BRIDGE_TRACKER).is_file()


def _look_at_bridge(folder: Path, trusted: bool) -> StartPoint:
    """Inspect a checkpoint of Megatron-Bridge, or the newest complete one in a folder."""
    found = folder if (folder / BRIDGE_CONFIG).is_file() else newest_of_bridge(folder)
    if found is None:
        return StartPoint(path=str(folder), backend="bridge", error="it has no complete checkpoint")
    try:
        fault = _bridge_fault(found) or (None if trusted else checkpoint_fault(found))
        described = None if fault else bridge_run_config.read(found)
    except (OSError, ValueError, NemolaunchError) as error:
        fault, described = f"it cannot be read: {error}", None
    if described is None:
        return StartPoint(path=str(found), backend="bridge", error=fault)
    config = _known_model(found, described)
    return StartPoint(
        path=str(found),
        backend="bridge",
        model_class=config.model_class if config else None,
        config_class=config.config_class if config else None,
        both_sides=_both_sides(described.model, BIDIRECTIONAL),
        shape={name: described.model[name] for name in SHAPE_FIELDS if described.model.get(name) is not None},
        fields=plain_fields(config.resolved) if config else {},
        step=max(0, step_of(found) + 1),
        saved=saved_run(RunDir(found.resolve().parent.parent)),
    )


def _known_model(checkpoint: Path, described: RunConfig) -> NemoConfig | None:
    """Return a plain GPT model's configuration in NeMo's terms; None for others, of which only sizes are compared."""
    try:
        config = model_in(checkpoint, described)
        return config if of_nemo(config).model_type in PLAIN else None
    except NemolaunchError:
        return None


def _bridge_fault(folder: Path) -> str | None:
    """Return what is wrong with it, as a clause that follows its path. May raise OSError."""
    if (folder.parent / BRIDGE_TRACKER).is_file() and is_bridge(folder) and unfinished(folder):
        return "it is incomplete: its save was interrupted"
    for name in (".metadata", "metadata.json"):
        if not (folder / name).is_file():
            return f"it is incomplete: it has no {name}"
    return None


def _class_name(content: dict[str, Any]) -> str | None:
    return str(content.get("_target_") or "").rpartition(".")[2] or None


def _both_sides(config: dict[str, Any], layers: str) -> bool | None:
    name = symbol_path(config.get("transformer_layer_spec"))
    return None if name is None else name == layers


def _fault(folder: Path) -> str | None:
    """Return what is wrong with it, as a clause that follows its path. May raise OSError."""
    if not folder.is_dir():
        above = missing_part(str(folder))
        return f"the folder does not exist ({above} is missing)" if above else "the folder does not exist"
    if unfinished(folder):
        return "it is incomplete: its save was interrupted"
    weights = folder / "weights"
    if not weights.is_dir():
        if (folder / "config.json").is_file():
            return "it is a Hugging Face model: convert it first with `nemolaunch convert`"
        return "it has no weights/ folder, so it is not a NeMo 2 checkpoint"
    if not (weights / "metadata.json").is_file() or not any(weights.glob("*.distcp")):
        return "its weights/ folder is incomplete: metadata.json and *.distcp files are needed"
    io = folder / "context" / "io.json"
    if not io.is_file() or io.stat().st_size == 0:
        return "it has no context/io.json, without which NeMo cannot load it"
    return None


def _instead(path: str, folder: Path) -> str | None:
    """Return the newest complete checkpoint inside the folder, or else a checkpoint with a similar name."""
    inner = [w.parent for w in (*folder.glob("*/weights"), *folder.glob("checkpoints/*/weights"))]
    whole = [checkpoint for checkpoint in inner if not checkpoint.is_symlink() and _fault(checkpoint) is None]
    if whole:
        return str(max(whole, key=lambda checkpoint: (step_of(checkpoint), checkpoint.name)))
    if folder.is_dir():
        return None
    return nearest(path, lambda near: os.path.isdir(os.path.join(os.path.expanduser(near), "weights")))


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
