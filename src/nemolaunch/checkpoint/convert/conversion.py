"""A conversion between Hugging Face and a checkpoint of Megatron: what is written, from what, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.convert.mapping import TensorMap
from nemolaunch.checkpoint.convert.sides import SIDES
from nemolaunch.checkpoint.convert.stream import Advance, export_tensors, import_tensors
from nemolaunch.checkpoint.convert.verify import verify
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSink
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import NemoConfig

HEAD = "output_layer.weight"


@dataclass(frozen=True, kw_only=True)
class ModelConversion:
    """A conversion between Hugging Face and NeMo 2 or Bridge, decided in full before anything is written.

    Attributes:
        to: "nemo2", "bridge" or "hf".
        family, config: the model's family and NeMo configuration.
        hf_config: the `config.json` of the Hugging Face side.
        mapped: the tensors of both sides and how they correspond.
        source: the tensors to read, under the names of `mapped`.
        tokenizer: the folder with the tokenizer.
        is_bidirectional: whether the model attends to tokens on both sides.
        generation: the source's generation config, if it has one.
        left_out: the names of source tensors that are not converted.
        changed: intentional differences from a bit-for-bit copy, in words.
    """

    to: str
    family: ModelFamily
    config: NemoConfig
    hf_config: dict[str, Any]
    mapped: TensorMap
    source: TensorSource
    tokenizer: Path
    is_bidirectional: bool = False
    generation: Path | None = None
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """The total size of the tensors in bytes."""
        return sum(info.nbytes for info in self.mapped.hf.values())

    def disk_bytes(self, output: Path) -> int:
        """Return the size of the result: nothing is shared with the source."""
        return self.nbytes

    @property
    def title(self) -> str:
        """A short description of the conversion."""
        sides = f"{self.family.model_type} ({self.family.architecture})", self.config.model_class
        return " → ".join(sides[::-1] if self.to == "hf" else sides)

    def verify(self, output: Path, advance: Advance) -> list[Check]:
        """Compare what `write` wrote with the source."""
        return verify(self, output, advance)

    def close(self) -> None:
        """Close the source's files."""
        self.source.close()

    def write(self, output: Path, advance: Advance) -> None:
        """Write the result to the folder `output`, reporting the bytes read to `advance`."""
        if self.to == "hf":
            self._write_hf(output, advance)
        else:
            self._write_megatron(output, advance)

    def _write_megatron(self, output: Path, advance: Advance) -> None:
        begin = SIDES[self.to].begin
        sink = begin(output, self.config, self.tokenizer, self.mapped.nemo, self.mapped.sizes.config)
        try:
            import_tensors(self.mapped, self.source, sink, advance)
            sink.finish()
        finally:
            sink.close()

    def _write_hf(self, output: Path, advance: Advance) -> None:
        output.mkdir(parents=True)
        sink = SafetensorsSink(output, self.mapped.hf)
        try:
            export_tensors(self.mapped, self.source, sink, advance)
            sink.finish()
        finally:
            sink.close()
        dtype = self.mapped.nemo[EMBEDDING].dtype
        hf_output.write_extras(output, self.hf_config, dtype, self.tokenizer, self.generation)
        if self.is_bidirectional:
            bidirectional.make_bidirectional(output)
