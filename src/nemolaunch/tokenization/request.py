"""The request, progress and result of a tokenising run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nemolaunch.data.unfinished import ENDING
from nemolaunch.errors import NemolaunchError
from nemolaunch.system import remote
from nemolaunch.tokenization.assemble import SAVE_BYTES
from nemolaunch.tokenization.sources import InputFile
from nemolaunch.tokenization.tokenizer import TokenizerSpec


class EngineMismatch(NemolaunchError):
    """Difference between a fast engine's ids and the reference's on a document of the input."""


class RecordRefused(NemolaunchError):
    """A record that is not a document, in a run that stops at such."""


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """What to tokenise, and where the output goes.

    Attributes:
        folder: where `NAME_KEY_document.bin` and `.idx` go.
        columns: for each source, the column of each key.
        on_error: `stop` at the first record that is not a document, or `skip` all of them.
        split: how documents were divided, for the manifest.
        unit_bytes: input of a unit of work, for a run in units.
        save_bytes: progress is saved after this much output.
        destination: URL of the folder that the outputs are uploaded to, from `folder`.
    """

    sources: list[InputFile]
    spec: TokenizerSpec
    folder: Path
    name: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    engine: str = "hf"
    workers: int = 1
    on_error: str = "stop"
    validation: float = 0.0
    validation_sources: frozenset[int] | None = None
    split: dict[str, Any] = field(default_factory=lambda: {"rule": "at read time"})
    shard: str | None = None
    piece_bytes: int | None = None
    unit_bytes: int | None = None
    save_bytes: int = SAVE_BYTES
    overwrite: bool = False
    restart: bool = False
    destination: str | None = None

    @property
    def work_folder(self) -> Path:
        """Return the folder of an unfinished run."""
        return self.folder / f"{self.name}{ENDING}"

    @property
    def trash(self) -> Path:
        """Return the name of the work folder while it is being removed."""
        return self.folder / f".{self.name}.removed"

    @property
    def prefixes(self) -> list[Path]:
        """Return the prefix of each output: by key, and for each key training before validation."""
        splits = ["", "_validation"] if self.validation or self.validation_sources is not None else [""]
        return [self.folder / f"{self.name}{split}_{key}_document" for key in self.keys for split in splits]

    @property
    def rejects(self) -> Path:
        """Return the file that lists rejected records."""
        return self.folder / f"{self.name}_rejects.jsonl"

    @cached_property
    def paths(self) -> list[str]:
        """Return the absolute path, or the URL, of each source."""
        return remote.all_absolute(source.path for source in self.sources)

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the bytes of the output. Only an identical run is resumed."""
        return {
            "format": 1,
            "tokenizer": self.spec.digest,
            "eod_id": self.spec.eod_id,
            "keys": list(self.keys),
            "columns": [list(c) for c in self.columns],
            "sources": [
                [path, s.kind, s.size, s.modified] for path, s in zip(self.paths, self.sources, strict=True)
            ],
            "split": self.split,
            "validation": self.validation,
            "validation_sources": sorted(self.validation_sources or ()),
            "shard": self.shard,
        }


@dataclass
class Tick:
    """Progress since the last one: input bytes, documents, tokens."""

    bytes: int = 0
    documents: int = 0
    tokens: int = 0


@dataclass
class Result:
    """The result of a run. `prefixes` are the outputs, without `.bin`; `urls` where they are in an object store."""

    prefixes: list[Path]
    manifests: list[dict[str, Any]] = field(default_factory=list)
    already_there: bool = False
    resumed_pieces: int = 0
    urls: list[str] = field(default_factory=list)

    @property
    def places(self) -> list[str]:
        """Return where the outputs are: URLs, or paths."""
        return self.urls or [str(prefix) for prefix in self.prefixes]
