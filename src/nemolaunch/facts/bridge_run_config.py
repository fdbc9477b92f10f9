"""The configuration that Bridge saves with each checkpoint, read as data: nothing that it names is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.families.description import reading, refuse_absurd_sizes
from nemolaunch.run.folder import BRIDGE_CONFIG

MOST_BYTES = 1 << 22  # of some 30 kilobytes that Bridge writes


@dataclass(frozen=True)
class RunConfig:
    """What a `run_config.yaml` says.

    Attributes:
        model: the fields of the model's configuration.
        provider: the name of the configuration's class.
        sections: everything else, by section.
    """

    model: dict[str, Any]
    provider: str
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section; empty if there is none."""
        return self.sections.get(name, {})

    @property
    def tokenizer(self) -> str | None:
        """The path or Hub id of the tokenizer."""
        found = self.section("tokenizer").get("tokenizer_model")
        return found if isinstance(found, str) else None


def read(folder: Path) -> RunConfig:
    """Read the configuration in a checkpoint folder.

    Raises `NemolaunchError` if it is missing, or does not describe a model.
    """
    import yaml

    path = folder / BRIDGE_CONFIG
    with reading(path, "Bridge"):
        content = yaml.safe_load(_text(path))
        sections = {str(name): dict(part) for name, part in content.items() if isinstance(part, dict)}
        model = sections.pop("model")
        provider = str(model.pop("_target_")).rpartition(".")[2]
    refuse_absurd_sizes(path, model)
    return RunConfig(model, provider, sections)


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return content.decode("utf-8")
