"""Move tensors from a source through their transformation to a sink, one group at a time.

While one group is transformed and written, the next is read if it is small, so that reading and writing overlap.
At most two groups are in memory, the second only if it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from nemolaunch.checkpoint.convert.mapping import TensorMap, transform
from nemolaunch.checkpoint.storage.tensors import TensorSink, TensorSource

if TYPE_CHECKING:
    import torch

READ_AHEAD_BYTES = 512 * 2**20

Advance = Callable[[int], None]
Item = TypeVar("Item")


def import_tensors(mapped: TensorMap, source: TensorSource, sink: TensorSink, advance: Advance) -> None:
    """Write a model's NeMo parameters from its Hugging Face tensors, reporting the bytes read to `advance`."""
    _move(mapped, source, sink, advance, to_nemo=True)


def export_tensors(mapped: TensorMap, source: TensorSource, sink: TensorSink, advance: Advance) -> None:
    """Write a model's Hugging Face tensors from its NeMo parameters, reporting the bytes read to `advance`."""
    _move(mapped, source, sink, advance, to_nemo=False)


def copy_tensors(source: TensorSource, sink: TensorSink, advance: Advance) -> None:
    """Write all tensors of a source under the same names, reporting the bytes read to `advance`."""
    work = [(name, source.tensors[name].nbytes) for name in source.tensors]
    for name, tensor in read_ahead(work, source.read):
        sink.write(name, tensor)
        advance(source.tensors[name].nbytes)


def _move(
    mapped: TensorMap, source: TensorSource, sink: TensorSink, advance: Advance, *, to_nemo: bool
) -> None:
    def read(names: tuple[str, ...]) -> list[torch.Tensor]:
        return [source.read(name) for name in names]

    names = [group.hf if to_nemo else group.nemo for group in mapped.groups]
    sizes = [mapped.group_bytes(group) for group in mapped.groups]
    reading = read_ahead(list(zip(names, sizes, strict=True)), read)
    for group, size, (_, tensors) in zip(mapped.groups, sizes, reading, strict=True):
        results = transform(group, tensors, mapped.sizes, to_nemo=to_nemo)
        del tensors
        for name, result in zip(group.nemo if to_nemo else group.hf, results, strict=True):
            sink.write(name, result)
        advance(size)


Result = TypeVar("Result")


def read_ahead(
    work: Sequence[tuple[Item, int]], read: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what was read for it; `work` has the items with their sizes in bytes.

    The next item is read in the meantime if the two together are small.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[Result] | None = None
        for number, (item, size) in enumerate(work):
            result = ahead.result() if ahead else read(item)
            ahead = None
            if number + 1 < len(work) and size + work[number + 1][1] <= READ_AHEAD_BYTES:
                ahead = pool.submit(read, work[number + 1][0])
            yield item, result
            del result
