"""A conversion between Hugging Face and NeMo 2, fully decided: what is written, from what, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.convert.check import Check
from nemolaunch.checkpoint.convert.mapping import TensorMap
from nemolaunch.checkpoint.convert.stream import Advance, export_tensors, import_tensors
from nemolaunch.checkpoint.convert.verify import verify
from nemolaunch.checkpoint.families.family import ModelFamily
from nemolaunch.checkpoint.families.nemo_config import NemoConfig
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.nemo2.folder import Nemo2Sink
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSink
from nemolaunch.checkpoint.storage.tensors import TensorSource

EMBEDDING, HEAD = "embedding.word_embeddings.weight", "output_layer.weight"


@dataclass(frozen=True, kw_only=True)
class ModelConversion:
    """Everything decided about a conversion before anything is written.

    Attributes:
        to: "nemo2" or "hf".
        family, config: what the model is, in both forms.
        hf_config: `config.json` of the Hugging Face side.
        mapped: the tensors.
        source: the side that is read, under the names of `mapped`.
        tokenizer: folder with the tokenizer.
        both_sides: whether the model attends to both sides of a token.
        generation: the source's generation config, if it has one.
        left_out: names of source tensors that are not converted.
        changed: what differs on purpose from a bit-for-bit copy, in words.
    """

    to: str
    family: ModelFamily
    config: NemoConfig
    hf_config: dict[str, Any]
    mapped: TensorMap
    source: TensorSource
    tokenizer: Path
    both_sides: bool = False
    generation: Path | None = None
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(info.nbytes for info in self.mapped.hf.values())

    @property
    def title(self) -> str:
        """The conversion in a few words."""
        sides = f"{self.family.model_type} ({self.family.architecture})", self.config.model_class
        return " → ".join(sides if self.to == "nemo2" else sides[::-1])

    def verify(self, output: Path, advance: Advance) -> list[Check]:
        """Compare what `write` has written with the source."""
        return verify(self, output, advance)

    def close(self) -> None:
        """Close the source's files."""
        self.source.close()

    def write(self, output: Path, advance: Advance) -> None:
        """Write the result as the folder `output`; `advance` is told the bytes read."""
        if self.to == "nemo2":
            self._write_nemo2(output, advance)
        else:
            self._write_hf(output, advance)

    def _write_nemo2(self, output: Path, advance: Advance) -> None:
        context.write_context(output / "context", self.config, self.tokenizer)
        sink = Nemo2Sink(output / "weights", self.mapped.nemo, self.mapped.sizes.config)
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
        if self.both_sides:
            bidirectional.make_bidirectional(output)
