"""Megatron-LM's format `torch`: a file of each tensor, pipeline and expert parallel rank, in `mp_rank_TT_PPP_EEE`.

Each has the part of the model that its rank holds, with layers and experts numbered from the rank's own first one. The
parts are joined as they are read; the optimizer's are not, since they depend on how gradients were bucketed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.megatron.iteration import IterationFolder
from nemolaunch.checkpoint.megatron_lm import arguments
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.formats import newest_of_megatron_lm
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.run.folder import BRIDGE_TRACKER

if TYPE_CHECKING:
    import torch

FILE = "model_optim_rng.pt"
# The pipeline's rank only if there are several, then the experts' if there are several (checkpointing.py,
# `get_checkpoint_name`)
RANK = re.compile(r"mp_rank_(\d\d)(?:_(\d{3}))?(?:_(\d{3}))?")
CHUNK = re.compile(r"model(?P<number>\d*)")
LAYER = re.compile(r"decoder\.layers\.(?P<number>\d+)\.(?P<rest>.+)")
# An expert's parameter: of experts in one module, as Transformer Engine has them, or in modules of their own
EXPERT = re.compile(
    r"(?P<head>.+\.experts)\.(?:local_experts\.(?P<module>\d+)\.)?(?P<linear>linear_fc[12]\.(?:weight|bias))(?P<number>\d*)"
)
# Experts as two matrices, which Megatron-LM had before it used Transformer Engine's
MATRICES = (".experts.weight1", ".experts.weight2")
# How tensor parallelism splits a parameter, by the end of its name without an expert's number: along this axis; others
# are in every rank
AXES = {
    "word_embeddings.weight": 0,
    "output_layer.weight": 0,
    "linear_qkv.weight": 0,
    "linear_qkv.bias": 0,
    "linear_q_proj.weight": 0,
    "linear_q_up_proj.weight": 0,
    "linear_kv_up_proj.weight": 0,
    "linear_fc1.weight": 0,
    "linear_fc1.bias": 0,
    "linear_proj.weight": 1,
    "linear_fc2.weight": 1,
}
DIGITS = "0123456789"
GATED = ("linear_fc1.weight", "linear_fc1.bias")  # each rank has its part of the gate, then of the rest
OUTPUT = "output_layer.weight"
Rank = tuple[int, int, int]  # of the tensor, pipeline and expert parallel groups


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

    def __init__(self, ranks: Mapping[Rank, TorchFile], files: OpenFiles, args: Mapping[str, Any]) -> None:
        """`ranks` has the file of each rank."""
        self._files = files
        self._gated = bool(args.get("swiglu") or args.get("quick_geglu"))
        self._parts: dict[str, list[Part]] = {}
        self.training_state = (
            ["optimizer"] if any("optimizer" in file.content for file in ranks.values()) else []
        )
        tensor_ranks = sorted({rank[0] for rank in ranks})
        experts = int(args.get("num_experts") or 0) // _sizes(args)[2]
        for tensor_rank in tensor_ranks:
            for name, part in _of_stages(ranks, tensor_rank, experts).items():
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
        if self._gated and name.rstrip(DIGITS).endswith(GATED):
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
        kind = name.rstrip(DIGITS)
        found = next((axis for end, axis in AXES.items() if kind.endswith(end)), None)
        return found if len(self._parts[name]) > 1 else None

    def _info(self, name: str) -> TensorInfo:
        infos, axis = [part.tensor.info for part in self._parts[name]], self._axis(name)
        shape = list(infos[0].shape)
        if axis is not None:
            shape[axis] = sum(info.shape[axis] for info in infos)
        return TensorInfo(infos[0].dtype, tuple(shape))


@dataclass(frozen=True)
class LegacyFolder(IterationFolder):
    """A checked checkpoint folder, with the arguments in it."""

    args: Mapping[str, Any]
    step: int

    @property
    def named_tokenizer(self) -> object:
        """The one that the command line named."""
        return self.args.get("tokenizer_model")

    def source(self) -> LegacySource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""
        files = OpenFiles()
        ranks = {rank: TorchFile(path, files) for rank, path in _files_of(self.path, self.args).items()}
        return LegacySource(ranks, files, self.args)


def read_folder(path: Path) -> LegacyFolder:
    """Check a checkpoint folder, or the folder of several for the newest, and read the description of the model.

    Raises:
        UsageError: it is not a complete checkpoint.
        NemolaunchError: its arguments are missing, or of a model that cannot be joined or converted.
    """
    found = newest_of_megatron_lm(path) if (path / BRIDGE_TRACKER).is_file() else path
    paths = _paths(found) if found is not None else []
    if found is None or not paths:
        raise UsageError(f"{path} has no complete checkpoint of Megatron-LM")
    files = OpenFiles()
    try:
        content = TorchFile(paths[0], files).content
        args = arguments.values_of(content.get("args"))
        _check(args, content, _files_of(found, args))
        config = arguments.nemo_config(args)
    except NemolaunchError as error:
        raise NemolaunchError(f"{found}: {error}") from error
    finally:
        files.close()
    return LegacyFolder(found, config, args, int(content.get("iteration") or 0))


def _check(args: Mapping[str, Any], content: Mapping[str, Any], ranks: Mapping[Rank, Path]) -> None:
    tensor, pipeline, expert = _sizes(args)
    wanted = itertools.product(range(tensor), range(pipeline), range(expert))
    missing = next((rank for rank in wanted if rank not in ranks), None)
    if missing:
        of_experts = f" and expert rank {missing[2]}" if expert > 1 else ""
        raise NemolaunchError(
            f"it is incomplete: tensor rank {missing[0]} of pipeline rank {missing[1]}{of_experts} is missing"
        )
    names = [str(name) for chunk in _chunks(content) for name in chunk]
    if not any(name.startswith("decoder.") for name in names):
        raise NemolaunchError(
            "it is of Megatron-LM's former models (--use-legacy-models), whose names are others"
        )
    split = int(args.get("expert_tensor_parallel_size") or tensor)
    if args.get("num_experts") and split != tensor:
        raise NemolaunchError(
            f"experts are split over {split} ranks and the rest of the model over {tensor} "
            "(--expert-tensor-parallel-size), which is not joined from this format: save it as torch_dist "
            "(--ckpt-convert-format)"
        )
    if any(name.endswith(MATRICES) for name in names):
        raise NemolaunchError(
            "its experts are two matrices (--moe-use-legacy-grouped-gemm), which are not joined from this format: save "
            "it as torch_dist (--ckpt-convert-format)"
        )
    queries = (
        args.get("num_query_groups") if args.get("group_query_attention") else args.get("num_attention_heads")
    )
    if int(queries or 1) % tensor:
        raise NemolaunchError(f"its {queries} query groups are not split evenly over {tensor} tensor ranks")


def _sizes(args: Mapping[str, Any]) -> Rank:
    """Return the sizes of the tensor, pipeline and expert parallel groups."""
    tensor, pipeline, expert = (
        int(args.get(f"{kind}_model_parallel_size") or 1) for kind in ("tensor", "pipeline", "expert")
    )
    return tensor, pipeline, expert


def _paths(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob(f"mp_rank_*/{FILE}")) if RANK.fullmatch(path.parent.name)]


def _files_of(folder: Path, args: Mapping[str, Any]) -> dict[Rank, Path]:
    """Return the files of a checkpoint by rank."""
    _, pipeline, expert = _sizes(args)
    found: dict[Rank, Path] = {}
    for path in _paths(folder):
        match = RANK.fullmatch(path.parent.name)
        assert match is not None
        tensor, *numbers = (int(number) for number in match.groups() if number)
        stage = numbers.pop(0) if pipeline > 1 and numbers else 0
        found.setdefault((tensor, stage, numbers.pop(0) if expert > 1 and numbers else 0), path)
    return found


def _chunks(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the state dicts of a rank's chunks of the model: one, or several of an interleaved pipeline."""
    named = {name: CHUNK.fullmatch(str(name)) for name in content}
    numbers = {name: int(match["number"] or 0) for name, match in named.items() if match}
    return [content[name] for name in sorted(numbers, key=lambda name: numbers[name]) if content[name]]


def _of_stages(ranks: Mapping[Rank, TorchFile], tensor_rank: int, num_experts: int) -> dict[str, Part]:
    """Return the parameters in all files of a tensor rank, with layers and experts numbered throughout.

    `num_experts` is the number of experts in each file.
    """
    mine = {rank[1:]: file for rank, file in ranks.items() if rank[0] == tensor_rank}
    chunks = {rank: _chunks(file.content) for rank, file in mine.items()}
    stages = sorted({stage for stage, _ in mine})
    found: dict[str, Part] = {}
    first = 0
    for number in range(max(map(len, chunks.values()))):
        for stage in stages:
            count = 0
            for expert_rank in sorted(expert for at, expert in mine if at == stage):
                for name, tensor in chunks[stage, expert_rank][number].items():
                    if not isinstance(tensor, LazyTensor):
                        continue  # the extra state of Transformer Engine's layers
                    layer = LAYER.fullmatch(name)
                    if layer:
                        count = max(count, int(layer["number"]) + 1)
                        name = f"decoder.layers.{first + int(layer['number'])}.{layer['rest']}"
                    expert = EXPERT.fullmatch(name)
                    if expert:
                        name = _of_expert(expert, expert_rank * num_experts)
                    elif expert_rank:
                        continue  # the same in the file of the first
                    found[name] = Part(mine[stage, expert_rank], tensor)
            first += count
    return found


def _of_expert(found: re.Match[str], first: int) -> str:
    """Return the name of a parameter in the whole model; `first` is the number of the rank's first expert."""
    number = first + int(found["module"] or found["number"])
    return f"{found['head']}.{found['linear']}{number}"
