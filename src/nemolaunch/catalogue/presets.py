"""Presets: flags that belong together, most of them measured to be the fastest for a model on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.names import did_you_mean
from nemolaunch.errors import UsageError
from nemolaunch.system.yaml_faults import fault

_SHIPPED = Path(__file__).with_name("preset_files")
_KEYS = {"gpu", "model", "source", "figures", "flags"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A set of flags, and what they were measured on if they were.

    Attributes:
        name: as given to `--preset`, or the name of its file.
        gpu: the GPU it was measured on, as the driver calls it; None if not stated.
        model: the model it was measured with; None if not stated.
        source: where the figures come from.
        figures: measurements with these flags: `tokens_per_s_per_gpu`, `mfu`, `memory_peak_bytes`, ….
        flags: values by flag name.
    """

    name: str
    gpu: str | None = None
    model: str | None = None
    source: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)


def presets() -> dict[str, Path]:
    """Return the shipped presets: name to YAML file."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def preset(word: str) -> Preset:
    """Return a shipped preset by name, or the preset in a YAML file.

    Raises:
        UsageError: there is none, or the file is not a preset.
    """
    import yaml

    shipped = presets()
    path = shipped.get(word) or Path(word)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        known = f"Known: {', '.join(shipped)}."
        raise UsageError(f"--preset: there is no preset {word!r}.{did_you_mean(word, shipped)} {known} "
                         "The name of a custom preset file must end in .yaml")  # fmt: skip
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--preset {path}: {fault(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("flags"), dict):
        raise UsageError(f"--preset {path} has no `flags:` with flag names and values")
    if unknown := sorted(map(str, content.keys() - _KEYS)):
        raise UsageError(
            f"--preset {path}: unknown key {', '.join(unknown)}; known keys are {', '.join(sorted(_KEYS))}"
        )
    name = word if word in shipped else path.stem
    return Preset(name=name, **{key: value for key, value in content.items() if value is not None})
