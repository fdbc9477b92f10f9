"""Conversions that copy the tensors of a source, which already has their new names and form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nemolaunch.checkpoint.convert.stream import Advance, copy_tensors, read_ahead
from nemolaunch.checkpoint.convert.verify import difference, unexpected
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.tensors import TensorSink, TensorSource


def _nothing(output: Path) -> None:
    pass


def _no_checks(output: Path) -> list[Check]:
    return []


@dataclass(frozen=True, kw_only=True)
class CopyConversion:
    """A conversion that writes the tensors of a source as they are.

    Attributes:
        title: a short description.
        source: the tensors, in the form and with the names of the result.
        sink: opens the result for writing.
        extras: writes what the result has besides tensors.
        reader: opens the result again, to verify it.
        checks: makes further comparisons of the result.
        left_out: the names of source tensors that are not copied.
        changed: intentional differences from the source, in words.
    """

    title: str
    source: TensorSource
    sink: Callable[[Path], TensorSink]
    reader: Callable[[Path], TensorSource]
    extras: Callable[[Path], None] = _nothing
    checks: Callable[[Path], list[Check]] = _no_checks
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """The total size of the tensors in bytes."""
        return sum(info.nbytes for info in self.source.tensors.values())

    def disk_bytes(self, output: Path) -> int:
        """Return the size of the result: nothing is shared with the source."""
        return self.nbytes

    def write(self, output: Path, advance: Advance) -> None:
        """Write the result, reporting the bytes read to `advance`."""
        sink = self.sink(output)
        try:
            copy_tensors(self.source, sink, advance)
            sink.finish()
        finally:
            sink.close()
        self.extras(output)

    def verify(self, output: Path, advance: Advance) -> list[Check]:
        """Read the result back and compare it with the source, bit for bit."""
        result = self.reader(output)
        try:
            return [self._compare(result, advance), *self.checks(output)]
        finally:
            result.close()

    def close(self) -> None:
        """Close the source's files."""
        self.source.close()

    def _compare(self, result: TensorSource, advance: Advance) -> Check:
        wrong = unexpected(result.tensors, self.source.tensors)
        if wrong:
            return Check("tensors", 0, wrong)
        work = [(name, 2 * info.nbytes) for name, info in self.source.tensors.items()]
        both = read_ahead(work, lambda name: (self.source.read(name), result.read(name)))
        for name, (before, after) in both:
            text = difference(before, after)
            if text:
                wrong.append(f"{name} {text}")
            advance(self.source.tensors[name].nbytes)
        return Check("tensors", len(self.source.tensors), wrong)
