"""The options of a conversion, and the interface of all conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nemolaunch.checkpoint.convert.stream import Advance
from nemolaunch.checkpoint.storage.check import Check


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a conversion.

    Attributes:
        overwrite: replace the output if it is already a checkpoint.
        verify: compare the result with the source.
        compare: a further check of what the source's and the result's models compute; its own result is None if
            it does not apply.
        weights_only: drop training state, even if the target could hold it.
        tokenizer: the folder with the tokenizer, if the source does not name one that exists here.
        config_from: a folder that describes the model, if the source has only tensors.
        model_class, config_class: the NeMo classes that the source must have.
        trust_remote_code: run code in the tokenizer's folder, if it has any.
        one_file: the output is a file and not a folder, going by its name.
    """

    overwrite: bool = False
    verify: bool = True
    compare: Callable[[Conversion, Path, Path], Check | None] | None = None
    weights_only: bool = False
    tokenizer: Path | None = None
    config_from: Path | None = None
    model_class: str | None = None
    config_class: str | None = None
    one_file: bool = False
    trust_remote_code: bool = False


class Conversion(Protocol):
    """A conversion, decided in full before anything is written."""

    @property
    def title(self) -> str:
        """A short description."""

    @property
    def nbytes(self) -> int:
        """The total size of the tensors in bytes."""

    def disk_bytes(self, output: Path) -> int:
        """Return the space in bytes that the result takes, as far as it shares none with the source."""

    @property
    def left_out(self) -> list[str]:
        """The names of source tensors that are not converted."""

    @property
    def changed(self) -> list[str]:
        """Intentional differences from the source, in words."""

    def write(self, output: Path, advance: Advance) -> None:
        """Write the result, reporting the bytes read to `advance`."""

    def verify(self, output: Path, advance: Advance) -> list[Check]:
        """Compare the result with the source, reporting the bytes compared to `advance`."""

    def close(self) -> None:
        """Close the source's files."""


Route = Callable[[Path, Options], Conversion]
