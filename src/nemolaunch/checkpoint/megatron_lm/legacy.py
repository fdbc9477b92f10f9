"""Megatron-LM's format `torch`: a file of each tensor and pipeline parallel rank, `mp_rank_TT_PPP/model_optim_rng.pt`.

Each has the part of the model that its rank holds, with layers numbered from the rank's own first one. The parts are
joined as they are read; the optimizer's are not, since they depend on how gradients were bucketed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.megatron_lm import arguments
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.formats import newest_of_megatron_lm
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts.bridge_model import to_nemo
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.run.folder import BRIDGE_TRACKER

if TYPE_CHECKING:
    import torch

FILE = "model_optim_rng.pt"
RANK = re.compile(r"mp_rank_(?P<tensor>\d\d)(?:_(?P<pipeline>\d{3}))?(?:_(?P<expert>\d{3}))?")
CHUNK = re.compile(r"model(?P<number>\d*)")
LAYER = re.compile(r"decoder\.layers\.(?P<number>\d+)\.(?P<rest>.+)")
# How tensor parallelism splits a parameter, by the end of its name: along this axis; others are in every rank
AXES = {
    "word_embeddings.weight": 0,
    "output_layer.weight": 0,
    "linear_qkv.weight": 0,
    "linear_qkv.bias": 0,
    "linear_fc1.weight": 0,
    "linear_fc1.bias": 0,
    "linear_proj.weight": 1,
    "linear_fc2.weight": 1,
}
GATED = ("linear_fc1.weight", "linear_fc1.bias")  # each rank has its part of the gate, then of the rest
OUTPUT = "output_layer.weight"


@dataclass(frozen=True)
class Part:
    """The part of a parameter in one rank's file."""

    file: TorchFile
    tensor: LazyTensor

    def read(self) -> torch.Tensor:
        """Return it."""
        return self.file.read(self.tensor)


class LegacySource:
    """The parameters of a model in the files of all ranks, with the names of the whole model's state dict.

    Attributes:
        training_state: what the files hold besides.
    """

    def __init__(
        self, ranks: Mapping[tuple[int, int], TorchFile], files: OpenFiles, args: Mapping[str, Any]
    ) -> None:
        """`ranks` has the file of each tensor and pipeline parallel rank."""
        self._files = files
        self._gated = bool(args.get("swiglu") or args.get("quick_geglu"))
        self._parts: dict[str, list[Part]] = {}
        self.training_state = (
            ["optimizer"] if any("optimizer" in file.content for file in ranks.values()) else []
        )
        tensor_ranks = sorted({rank for rank, _ in ranks})
        for tensor_rank in tensor_ranks:
            for name, part in _of_stages(ranks, tensor_rank).items():
                self._parts.setdefault(name, []).append(part)
        if not args.get("untie_embeddings_and_output_weights"):
            self._parts.pop(OUTPUT, None)  # the last stage's copy of the embedding
        short = [name for name, parts in self._parts.items() if len(parts) != len(tensor_ranks)]
        if short:
            raise NemolaunchError(
                f"{short[0]} is in {len(self._parts[short[0]])} of {len(tensor_ranks)} ranks' files"
            )
        self.tensors = {name: self._info(name) for name in self._parts}

    def read(self, name: str) -> torch.Tensor:
        """Return a whole parameter. Raises `NemolaunchError` if ranks that should have the same one do not."""
        import torch

        parts, axis = [part.read() for part in self._parts[name]], self._axis(name)
        if axis is None:
            if any(not torch.equal(parts[0], part) for part in parts[1:]):
                raise NemolaunchError(
                    f"{name} differs between tensor parallel ranks, which all should have the same"
                )
            return parts[0]
        if self._gated and name.endswith(GATED):
            halves = [part.chunk(2) for part in parts]
            return torch.cat([half[number] for number in (0, 1) for half in halves])
        return torch.cat(parts, dim=axis)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a parameter."""
        return self.read(name)[start:stop].contiguous()

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def _axis(self, name: str) -> int | None:
        found = next((axis for end, axis in AXES.items() if name.endswith(end)), None)
        return found if len(self._parts[name]) > 1 else None

    def _info(self, name: str) -> TensorInfo:
        infos, axis = [part.tensor.info for part in self._parts[name]], self._axis(name)
        shape = list(infos[0].shape)
        if axis is not None:
            shape[axis] = sum(info.shape[axis] for info in infos)
        return TensorInfo(infos[0].dtype, tuple(shape))


@dataclass(frozen=True)
class LegacyFolder:
    """A checked checkpoint folder, with the arguments in it."""

    path: Path
    config: NemoConfig
    args: Mapping[str, Any]
    step: int

    @property
    def weights(self) -> Path:
        """The folder with the files of all ranks."""
        return self.path

    @property
    def tokenizer_copy(self) -> Path:
        """Where a tokenizer would be: there is none."""
        return self.path / "tokenizer"

    @property
    def generation(self) -> Path:
        """Where a generation config would be: there is none."""
        return self.path / hf_output.GENERATION

    def source(self) -> LegacySource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""
        files = OpenFiles()
        ranks = {rank: TorchFile(path, files) for rank, path in _files_of(self.path).items()}
        return LegacySource(ranks, files, self.args)

    def find_tokenizer(self, given: Path | None) -> Path:
        """Return the folder with the tokenizer: the given one, or the one that the command line named."""
        named = self.args.get("tokenizer_model")
        return hf_output.find_tokenizer(self.path, named if isinstance(named, str) else None, given)

    def check_names(self) -> None:
        """Do nothing: no framework loads it."""


def read_folder(path: Path) -> LegacyFolder:
    """Check a checkpoint folder, or the folder of several for the newest, and read the description of the model.

    Raises:
        UsageError: it is not a complete checkpoint.
        NemolaunchError: its arguments are missing, or of a model that cannot be joined or converted.
    """
    found = newest_of_megatron_lm(path) if (path / BRIDGE_TRACKER).is_file() else path
    ranks = _files_of(found) if found is not None else {}
    if found is None or not ranks:
        raise UsageError(f"{path} has no complete checkpoint of Megatron-LM")
    files = OpenFiles()
    try:
        content = TorchFile(ranks[min(ranks)], files).content
        args = arguments.values_of(content.get("args"))
        _check(args, content, ranks)
        config = to_nemo("GPTModelProvider", arguments.model_fields(args))
    except NemolaunchError as error:
        raise NemolaunchError(f"{found}: {error}") from error
    finally:
        files.close()
    return LegacyFolder(found, config, args, int(content.get("iteration") or 0))


def _check(
    args: Mapping[str, Any], content: Mapping[str, Any], ranks: Mapping[tuple[int, int], Path]
) -> None:
    tensor, pipeline = (int(args.get(f"{kind}_model_parallel_size") or 1) for kind in ("tensor", "pipeline"))
    missing = [(t, p) for t in range(tensor) for p in range(pipeline) if (t, p) not in ranks]
    if missing:
        raise NemolaunchError(
            f"it is incomplete: tensor rank {missing[0][0]} of pipeline rank {missing[0][1]} is missing"
        )
    if args.get("num_experts"):
        raise NemolaunchError(
            "experts are not joined from this format: save it as torch_dist (--ckpt-convert-format)"
        )
    if not any(name.startswith("decoder.") for chunk in _chunks(content) for name in chunk):
        raise NemolaunchError(
            "it is of Megatron-LM's former models (--use-legacy-models), whose names are others"
        )
    queries = (
        args.get("num_query_groups") if args.get("group_query_attention") else args.get("num_attention_heads")
    )
    if int(queries or 1) % tensor:
        raise NemolaunchError(f"its {queries} query groups are not split evenly over {tensor} tensor ranks")


def _files_of(folder: Path) -> dict[tuple[int, int], Path]:
    """Return the files of a checkpoint by tensor and pipeline parallel rank; of experts' ranks only the first."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.glob(f"mp_rank_*/{FILE}")):
        rank = RANK.fullmatch(path.parent.name)
        if rank:
            found.setdefault((int(rank["tensor"]), int(rank["pipeline"] or 0)), path)
    return found


def _chunks(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the state dicts of a rank's chunks of the model: one, or several of an interleaved pipeline."""
    named = {name: CHUNK.fullmatch(str(name)) for name in content}
    numbers = {name: int(match["number"] or 0) for name, match in named.items() if match}
    return [content[name] for name in sorted(numbers, key=lambda name: numbers[name]) if content[name]]


def _of_stages(ranks: Mapping[tuple[int, int], TorchFile], tensor_rank: int) -> dict[str, Part]:
    """Return the parameters in the files of all pipeline stages of a tensor rank, with layers numbered throughout."""
    stages = sorted(stage for rank, stage in ranks if rank == tensor_rank)
    chunks = {stage: _chunks(ranks[tensor_rank, stage].content) for stage in stages}
    found: dict[str, Part] = {}
    first = 0
    for number in range(max(map(len, chunks.values()))):
        for stage in stages:
            count = 0
            for name, tensor in chunks[stage][number].items():
                if not isinstance(tensor, LazyTensor):
                    continue  # the extra state of Transformer Engine's layers
                layer = LAYER.fullmatch(name)
                if layer:
                    count = max(count, int(layer["number"]) + 1)
                    name = f"decoder.layers.{first + int(layer['number'])}.{layer['rest']}"
                found[name] = Part(ranks[tensor_rank, stage], tensor)
            first += count
    return found
