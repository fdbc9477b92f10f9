"""Verify a conversion by reading back its result: all tensors, configuration fields, and tokenizer files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nemolaunch.checkpoint.convert.mapping import TensorMap, transform
from nemolaunch.checkpoint.convert.sides import SIDES
from nemolaunch.checkpoint.convert.stream import Advance, read_ahead
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.config_diff import differences
from nemolaunch.checkpoint.hf.tokenizer_check import tokenizer_check
from nemolaunch.checkpoint.hf.weights import open_weights
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSource, info_of
from nemolaunch.families import registry
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.families.rules import Group

if TYPE_CHECKING:
    import torch

HF_SKIPPED = {"architectures", "model_type"}
# The vocabulary is without padding; the longest sequence is in seq_length; a copied output layer may be tied again
NEMO_SKIPPED = {"vocab_size", "max_position_embeddings", "share_embeddings_and_output_weights"}


class VerifiableConversion(Protocol):
    """What `verify` needs to know of a conversion; see `ModelConversion` for the attributes."""

    @property
    def to(self) -> str:
        """The target format."""

    @property
    def family(self) -> ModelFamily:
        """The model's family."""

    @property
    def config(self) -> NemoConfig:
        """NeMo's configuration."""

    @property
    def hf_config(self) -> dict[str, Any]:
        """The `config.json`."""

    @property
    def mapped(self) -> TensorMap:
        """The tensors of both sides."""

    @property
    def source(self) -> TensorSource:
        """The tensors that are read."""

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer."""


def verify(conversion: VerifiableConversion, output: Path, advance: Advance) -> list[Check]:
    """Read the result back and compare it with the source, reporting the bytes of each tensor to `advance`.

    Each tensor of the result is transformed back to the source's form, and must equal the source's tensor bit for
    bit. The configuration is read from the result and translated back.
    """
    result = _open(conversion, output)
    try:
        return [
            _tensors(conversion.mapped, conversion.source, result, conversion.to, advance),
            _config(conversion, output),
            tokenizer_check(conversion.tokenizer, _tokenizer_folder(conversion, output)),
        ]
    finally:
        result.close()


def _open(conversion: VerifiableConversion, output: Path) -> TensorSource:
    if conversion.to != "hf":
        return SIDES[conversion.to].read(output).source()
    return open_weights(hf_folder.read_folder(output)).source


def _tensors(
    mapped: TensorMap, source: TensorSource, result: TensorSource, to: str, advance: Advance
) -> Check:
    wrong = unexpected(result.tensors, mapped.hf if to == "hf" else mapped.nemo)
    if wrong:
        return Check("tensors", 0, wrong)

    def read(group: Group) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        ours, theirs = (group.nemo, group.hf) if to == "hf" else (group.hf, group.nemo)
        return [source.read(name) for name in ours], [result.read(name) for name in theirs]

    compared = 0
    work = [(group, 2 * mapped.group_bytes(group)) for group in mapped.groups]
    for group, (expected, got) in read_ahead(work, read):
        if getattr(group.op, "rounds", False):  # what cannot be undone exactly is done again
            returned, expected = got, transform(group, expected, mapped.sizes, to_nemo=to != "hf")
        else:
            returned = transform(group, got, mapped.sizes, to_nemo=to == "hf")
        names = group.nemo if to == "hf" else group.hf
        for name, before, after in zip(names, expected, returned, strict=True):
            text = difference(before, after)
            if text:
                wrong.append(f"{name} {text}")
            compared += 1
        advance(mapped.group_bytes(group))
    return Check("tensors", compared, wrong)


def unexpected(found: Mapping[str, TensorInfo], written: Mapping[str, TensorInfo]) -> list[str]:
    """Return a line for each tensor of a result that is missing, extra, or of another dtype or shape."""
    wrong = []
    for name, info in found.items():
        if name not in written:
            wrong.append(f"{name} is in the result but should not be")
        elif written[name] != info:
            wrong.append(f"{name} is {info}, not {written[name]}")
    return wrong + [f"{name} is missing" for name in written if name not in found]


def difference(before: torch.Tensor, after: torch.Tensor) -> str | None:
    """Return how two tensors differ, in dtype, shape or bits; None if they are identical."""
    import torch

    if info_of(before) != info_of(after):
        return f"is {info_of(after)}, was {info_of(before)}"
    if not before.numel():
        return None
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (before, after))
    if torch.equal(a, b):
        return None
    wrong = int((a.view(before.numel(), -1) != b.view(before.numel(), -1)).any(dim=1).sum())
    return f"differs in {wrong:,} of {before.numel():,} elements"


def _config(conversion: VerifiableConversion, output: Path) -> Check:
    """Compare the fields that both forms have, translated back to reveal what one side cannot represent."""
    if conversion.to != "hf":
        written = SIDES[conversion.to].read(output).config
        returned = registry.of_nemo(written).to_hf(written)
        copied = {"tie_word_embeddings"} if conversion.family.copies_tied else set()
        count, lines = differences(conversion.hf_config, returned, HF_SKIPPED | copied)
    else:
        folder = hf_folder.read_folder(output)
        causal = bidirectional.causal_config(folder.config)
        fields = conversion.family.to_nemo(causal, conversion.config.model_class).fields
        count, lines = differences(conversion.config.resolved, fields, NEMO_SKIPPED)
    return Check("config", count, lines)


def _tokenizer_folder(conversion: VerifiableConversion, output: Path) -> Path:
    return output if conversion.to == "hf" else SIDES[conversion.to].read(output).tokenizer_copy
