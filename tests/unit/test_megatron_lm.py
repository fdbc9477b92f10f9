"""Checkpoints of Megatron-LM, without it; `tests/bridge/test_migrate.py` has it write and load them."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import training_checkpoint as checkpoints
from nemo2.convert_support import assert_same_tensors, tensors

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.convert.options import Options
from nemolaunch.checkpoint.convert.summary import summarise
from nemolaunch.checkpoint.megatron_lm.folder import read_folder
from nemolaunch.checkpoint.nemo2.folder import read_folder as read_nemo2
from nemolaunch.checkpoint.storage.saved import read_saved
from nemolaunch.errors import NemolaunchError

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"
GIVEN = Options(tokenizer=TOKENIZER)
TP, PP = 2, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder; beside it `nemo2`, a training's checkpoint of the same model."""
    folder = tmp_path_factory.mktemp("model")
    checkpoints.write(folder / "nemo2", checkpoints.hf_model(folder / "hf", TOKENIZER))
    return folder


@pytest.fixture(scope="module")
def args(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The arguments of that model, as we record them."""
    folder = tmp_path_factory.mktemp("recorded") / "megatron-lm"
    convert(model / "nemo2", folder, "megatron-lm")
    return dict(read_folder(folder).args)


def test_back_from_megatron_lm(model: Path, tmp_path: Path) -> None:
    """With the optimizer, and as a release of the weights alone."""
    convert(model / "nemo2", tmp_path / "lm", "megatron-lm")
    assert (tmp_path / "lm" / "latest_checkpointed_iteration.txt").read_text() == "4"
    found = summarise(tmp_path / "lm")
    assert (found.format, found.step, found.samples, found.optimizer) == ("megatron-lm", 4, 64, True)
    convert(tmp_path / "lm", tmp_path / "back", "nemo2")
    old, new = (read_saved(path / "weights" / "common.pt") for path in (model / "nemo2", tmp_path / "back"))
    assert new["optimizer"] == old["optimizer"]
    convert(model / "hf", tmp_path / "release", "megatron-lm")
    assert summarise(tmp_path / "release").step is None
    for name in ("lm", "release"):
        convert(tmp_path / name, tmp_path / f"{name}-hf", "hf")
        assert_same_tensors(tensors(model / "hf"), tensors(tmp_path / f"{name}-hf"))


def parts(model: Path, folder: Path, args: dict[str, Any]) -> Path:
    """The model in the format `torch`: parts by rows, by columns, of both halves of a gate, and whole."""
    import torch

    source = read_nemo2(model / "nemo2").source()
    layers = args["num_layers"] // PP
    for rank in range(TP):
        for stage in range(PP):
            held: dict[str, Any] = {"decoder.final_layernorm._extra_state": None}
            for name in source.tensors:
                place = name
                if name.startswith("decoder.layers."):
                    number = int(name.split(".")[2])
                    place = name.replace(f".{number}.", f".{number % layers}.", 1)
                    if number // layers != stage:
                        continue
                elif ("embedding" in name) != (stage == 0):
                    continue
                held[place] = part_of(source.read(name), name, rank)
            content = {
                "args": argparse.Namespace(**args),
                "checkpoint_version": 3.0,
                "iteration": 4,
                "model": held,
            }
            path = folder / "iter_0000004" / f"mp_rank_{rank:02d}_{stage:03d}" / "model_optim_rng.pt"
            path.parent.mkdir(parents=True)
            torch.save(content, path)
    (folder / "latest_checkpointed_iteration.txt").write_text("4")
    return folder


def part_of(tensor: Any, name: str, rank: int) -> Any:
    """What a tensor parallel rank holds of a parameter, by Megatron-Core's layers."""
    import torch

    if name.endswith("linear_fc1.weight"):
        return torch.cat([half.chunk(TP)[rank] for half in tensor.chunk(2)])
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return tensor.chunk(TP, dim=1)[rank].clone()
    if "layernorm" in name or "layer_norm" in name or "router" in name:
        return tensor
    return tensor.chunk(TP)[rank].clone()


def test_parts_are_joined(model: Path, args: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"tensor_model_parallel_size": TP, "pipeline_model_parallel_size": PP}
    folder = parts(model, tmp_path / "legacy", {**args, **sizes})
    assert summarise(folder).layout["TP"] == TP
    convert(folder, tmp_path / "hf", "hf", GIVEN)
    assert_same_tensors(tensors(model / "hf"), tensors(tmp_path / "hf"))
    convert(folder, tmp_path / "bridge", "bridge", GIVEN)
    os.remove(folder / "iter_0000004" / "mp_rank_01_001" / "model_optim_rng.pt")
    with pytest.raises(NemolaunchError, match="tensor rank 1 of pipeline rank 1 is missing"):
        convert(folder, tmp_path / "other", "hf", GIVEN)


@pytest.mark.parametrize("grouped", [True, False])
def test_experts_are_joined(grouped: bool, tmp_path: Path) -> None:
    """Two ranks with two experts each, numbered from 0, in one module or in modules of their own."""
    import torch

    source = mixtral(tmp_path / "hf")
    convert(source, tmp_path / "nemo2", "nemo2")
    convert(source, tmp_path / "release", "megatron-lm")
    args = {**read_folder(tmp_path / "release").args, "tensor_model_parallel_size": TP}
    args |= {"expert_model_parallel_size": 2, "expert_tensor_parallel_size": TP}
    stored = read_nemo2(tmp_path / "nemo2").source()
    for rank, expert_rank in itertools.product(range(TP), range(2)):
        held = {}
        for name in stored.tensors:
            expert = re.fullmatch(r"(.+\.experts)\.(linear_fc[12])\.weight(\d)", name)
            if expert is None:
                held[name] = part_of(stored.read(name), name, rank)
            elif int(expert[3]) // 2 == expert_rank:
                number, last = int(expert[3]) % 2, f"{expert[2]}.weight"
                place = f"{last}{number}" if grouped else f"local_experts.{number}.{last}"
                held[f"{expert[1]}.{place}"] = part_of(stored.read(name), last, rank)
        content = {
            "args": argparse.Namespace(**args),
            "checkpoint_version": 3.0,
            "iteration": 4,
            "model": held,
        }
        path = (
            tmp_path / "lm" / "iter_0000004" / f"mp_rank_{rank:02d}_{expert_rank:03d}" / "model_optim_rng.pt"
        )
        path.parent.mkdir(parents=True)
        torch.save(content, path)
    (tmp_path / "lm" / "latest_checkpointed_iteration.txt").write_text("4")
    convert(tmp_path / "lm", tmp_path / "back", "hf", GIVEN)
    assert_same_tensors(tensors(source), tensors(tmp_path / "back"))
    os.remove(tmp_path / "lm" / "iter_0000004" / "mp_rank_01_001" / "model_optim_rng.pt")
    with pytest.raises(NemolaunchError, match="rank 1 of pipeline rank 0 and expert rank 1 is missing"):
        convert(tmp_path / "lm", tmp_path / "other", "hf", GIVEN)


def mixtral(folder: Path) -> Path:
    """A Hugging Face folder with a small Mixtral of random weights."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=8192, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=64,
    )  # fmt: skip
    shutil.copytree(TOKENIZER, folder)
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 8, "expert_tensor_parallel_size": 1}, "experts are split over 1 ranks"),
        ({"hybrid_layer_pattern": "M*-"}, "not a plain GPT"),
    ],
)
def test_refused_parts(
    change: dict[str, Any], message: str, model: Path, args: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {"tensor_model_parallel_size": TP, "pipeline_model_parallel_size": PP}
    folder = parts(model, tmp_path / "legacy", {**args, **sizes, **change})
    with pytest.raises(NemolaunchError, match=message):
        convert(folder, tmp_path / "hf", "hf", GIVEN)
