"""Compare two checkpoints in any formats, tensor by tensor and bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.convert.options import Options
from nemolaunch.checkpoint.convert.routes import MODELS, VIEWS, stored
from nemolaunch.checkpoint.convert.stream import Advance, read_ahead
from nemolaunch.checkpoint.convert.verify import difference
from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
from nemolaunch.checkpoint.storage.tensors import TensorSource

if TYPE_CHECKING:
    import torch


@dataclass
class Differences:
    """The differences between the tensors of two checkpoints, by name.

    Attributes:
        missing, unexpected: tensors that are only in the first, or only in the second.
        other_form: tensors with another type or shape, described in words.
        other_values: tensors with other bits, described in words.
        largest: the largest difference of a value, over all tensors of the same shape.
        equal: the number of identical tensors.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other_form: dict[str, str] = field(default_factory=dict)
    other_values: dict[str, str] = field(default_factory=dict)
    largest: float = 0.0
    equal: int = 0

    @property
    def any(self) -> bool:
        """Whether the checkpoints differ at all."""
        return bool(self.missing or self.unexpected or self.other_form or self.other_values)


class CheckpointPair:
    """Two checkpoints with matching names: their own if the formats are the same, else Hugging Face's."""

    def __init__(self, first: Path, second: Path) -> None:
        """Open both. Raises `NemolaunchError` or `UsageError` if one of them is not a readable checkpoint."""
        first, second = (newest_of_run(path.expanduser()) for path in (first, second))
        forms = detect(first), detect(second)
        by_model = forms[0] != forms[1] and all(form in MODELS for form in forms)
        self.sources = [_open(path, as_model=by_model) for path in (first, second)]

    @property
    def nbytes(self) -> int:
        """The number of bytes to compare."""
        return sum(info.nbytes for info in self.sources[0].tensors.values())

    def differences(self, advance: Advance = lambda count: None) -> Differences:
        """Compare all tensors, reporting the bytes of each to `advance`."""
        first, second = self.sources
        found = Differences(
            missing=[name for name in first.tensors if name not in second.tensors],
            unexpected=[name for name in second.tensors if name not in first.tensors],
        )
        shared = [(n, 2 * info.nbytes) for n, info in first.tensors.items() if n in second.tensors]
        both = read_ahead(shared, lambda name: (first.read(name), second.read(name)))
        for name, (one, other) in both:
            text = difference(one, other)
            if text is None:
                found.equal += 1
            elif first.tensors[name] != second.tensors[name]:
                found.other_form[name] = text
            else:
                found.other_values[name] = text
            if text and one.shape == other.shape:
                found.largest = max(found.largest, _largest(one, other))
            advance(first.tensors[name].nbytes)
        return found

    def close(self) -> None:
        """Close both checkpoints."""
        for source in self.sources:
            source.close()


def _open(path: Path, *, as_model: bool) -> TensorSource:
    options = Options()
    return VIEWS[detect(path)](path, options).source if as_model else stored(path, options)[0]


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
