"""Operations that turn Hugging Face's tensors into Megatron's, and back.

Each operation takes the tensors of one rule and the NeMo configuration. It only reorders and concatenates, so that it
is reversible bit for bit, unless it has `rounds`; it also works on the meta device, where shapes are planned.
Megatron's order is query, key and value rows group by group, and the gate before the up projection
(nemo.lightning.io.state.TransformFns).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from nemolaunch.families.param_shapes import DELTA_PROJECTION, ModelSizes

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


class Op(Protocol):
    """One kind of transformation. Tensors are in the order of a rule's names."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors for Hugging Face's."""

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors for NeMo's."""


class Same:
    """The identity: only the name changes."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        return tensors

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        return tensors


class Qkv:
    """Query, key and value projections (weights or biases) merged into one, group by group."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        import torch

        query, key, value = tensors
        rest = query.shape[1:]
        groups = key.shape[0] // sizes.head_dim  # can differ among layers
        parts = [tensor.reshape(groups, -1, *rest) for tensor in (query, key, value)]
        return [torch.cat(parts, dim=1).reshape(-1, *rest)]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        (joined,) = tensors
        rest = joined.shape[1:]
        groups = (joined.shape[0] // sizes.head_dim - sizes.heads) // 2
        by_group = joined.reshape(groups, -1, *rest)
        query = sizes.heads // groups * sizes.head_dim
        widths = [query, sizes.head_dim, sizes.head_dim]
        return [part.reshape(-1, *rest) for part in by_group.split(widths, dim=1)]


class PackedQkv(Qkv):
    """The same as `Qkv`, for a source that concatenates the three in one tensor."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        (packed,) = tensors
        query = sizes.heads * sizes.head_dim
        other = (packed.shape[0] - query) // 2
        return super().to_nemo(packed.split([query, other, other], dim=0), sizes)

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        import torch

        return [torch.cat(list(super().to_hf(tensors, sizes)))]


class GatedQkv:
    """Query, key and value projections, where each head of the queries is followed by the gate of its output."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        import torch

        query, key, value = tensors
        rest = query.shape[1:]
        by_head = query.reshape(sizes.heads, 2, sizes.head_dim, *rest)
        parts = [by_head[:, 0], by_head[:, 1], key, value]
        return [
            torch.cat([part.reshape(sizes.groups, -1, *rest) for part in parts], dim=1).reshape(-1, *rest)
        ]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        import torch

        (joined,) = tensors
        rest = joined.shape[1:]
        own = sizes.heads // sizes.groups * sizes.head_dim
        query, gate, key, value = joined.reshape(sizes.groups, -1, *rest).split(
            [own, own, sizes.head_dim, sizes.head_dim], dim=1
        )
        heads = [part.reshape(sizes.heads, 1, sizes.head_dim, *rest) for part in (query, gate)]
        return [torch.cat(heads, dim=1).reshape(-1, *rest), *(p.reshape(-1, *rest) for p in (key, value))]


class DeltaProjection:
    """The input projection of Qwen3-Next's gated delta nets, whose rows are grouped by heads of keys."""

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        rows, heads = sizes.delta_rows, int(sizes["linear_num_key_heads"])
        found = []
        for tensor, parts in zip(tensors, (DELTA_PROJECTION[:4], DELTA_PROJECTION[4:]), strict=True):
            by_head = tensor.reshape(heads, -1, tensor.shape[1])
            widths = [rows[part] // heads for part in parts]
            found += [part.reshape(-1, tensor.shape[1]) for part in by_head.split(widths, dim=1)]
        return found

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        import torch

        heads, width = int(sizes["linear_num_key_heads"]), tensors[0].shape[1]
        by_head = [tensor.reshape(heads, -1, width) for tensor in tensors]
        return [torch.cat(part, dim=1).reshape(-1, width) for part in (by_head[:4], by_head[4:])]


class DeltaParts:
    """The parts of a projection or convolution of a gated delta net, one after the other."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        rows = sizes.delta_rows
        return [part.contiguous() for part in tensors[0].split([rows[part] for part in self.parts])]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        import torch

        return [torch.cat(list(tensors))]


class ZeroCentred:
    """A norm that Megatron stores less 1. It rounds, unless the weight is between 0.5 and 2."""

    rounds = True

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        return [tensor - 1 for tensor in tensors]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        return [tensor + 1 for tensor in tensors]


class Concatenated:
    """Tensors of the same shape, concatenated: gate and up projection."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        import torch

        return [torch.cat(list(tensors))]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        return [part.contiguous() for part in tensors[0].chunk(self.count)]


class MambaParts:
    """Mamba's input projection or convolution, which Megatron's checkpoints split into parts."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        rows = sizes.mamba_rows
        return [part.contiguous() for part in tensors[0].split([rows[part] for part in self.parts])]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        import torch

        return [torch.cat(list(tensors))]


class StackedExperts:
    """All experts in one tensor, each transposed: `[experts, in, out]`.

    With `interleaved`, the rows of gate and up projection alternate (GPT-OSS).
    """

    def __init__(self, *, interleaved: bool = False) -> None:
        self.interleaved = interleaved

    def to_nemo(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the NeMo tensors."""
        import torch

        experts = [expert.t() if expert.dim() == 2 else expert for expert in tensors[0]]
        if self.interleaved:
            return [torch.cat([expert[::2], expert[1::2]]) for expert in experts]
        return [expert.contiguous() for expert in experts]

    def to_hf(self, tensors: Tensors, sizes: ModelSizes) -> Tensors:
        """Return the Hugging Face tensors."""
        first = tensors[0]
        shape = (len(tensors), *reversed(first.shape))
        stacked = first.new_empty(shape)
        for into, expert in zip(stacked, tensors, strict=True):
            rows = into.t() if into.dim() == 2 else into
            if self.interleaved:
                gate, up = expert.chunk(2)
                rows[::2].copy_(gate)
                rows[1::2].copy_(up)
            else:
                rows.copy_(expert)
        return [stacked]
