"""What a conversion may be told, and what each way from one format to another has to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nemolaunch.checkpoint.convert.check import Check
from nemolaunch.checkpoint.convert.stream import Advance


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may choose.

    Attributes:
        overwrite: replace the output if it is a checkpoint already.
        verify: compare the result with the source; off, nothing is proven.
        compare: a further check of both folders, source and result, by what the models compute; None where
            it does not apply.
        weights_only: leave training state behind, where the target could hold it.
        tokenizer: folder with the tokenizer, where the source does not name one that is here.
        like: folder that says what the model is, where the source has tensors only.
        model_class, config_class: NeMo's classes that the source is said to have.
        one_file: the output is a file, not a folder, as its name says.
    """

    overwrite: bool = False
    verify: bool = True
    compare: Callable[[Conversion, Path, Path], Check | None] | None = None
    weights_only: bool = False
    tokenizer: Path | None = None
    like: Path | None = None
    model_class: str | None = None
    config_class: str | None = None
    one_file: bool = False


class Conversion(Protocol):
    """One conversion, decided: what a route returns."""

    @property
    def title(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def left_out(self) -> list[str]: ...

    @property
    def changed(self) -> list[str]: ...

    def write(self, output: Path, advance: Advance) -> None: ...

    def verify(self, output: Path, advance: Advance) -> list[Check]: ...

    def close(self) -> None: ...


Route = Callable[[Path, Options], Conversion]
