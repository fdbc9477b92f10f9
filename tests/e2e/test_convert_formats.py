"""Checkpoints in every format: other tools' files are read, they read ours, and no bit is lost."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import meta_llama
import pytest
import torch
from nemo2.small_models import write_model
from safetensors.torch import load_file

from nemolaunch.checkpoint.meta.params import ffn_params, ffn_size
from nemolaunch.cli.commands.convert import main

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with grouped queries."""
    folder = tmp_path_factory.mktemp("hf") / "llama"
    write_model(folder, "llama", tie_word_embeddings=False, intermediate_size=176)
    return folder


@pytest.fixture(scope="module")
def meta(source: Path) -> Path:
    """The same in Meta's layout."""
    return convert(source, source.parent / "meta", "meta")


def convert(source: Path, output: Path, to: str, *more: str) -> Path:
    assert main([str(source), str(output), "--to", to, "--verify", "bits", *more]) == 0
    return output


def refusal(capsys: pytest.CaptureFixture[str], source: Path, output: Path, to: str, *more: str) -> str:
    capsys.readouterr()
    assert main([str(source), str(output), "--to", to, *more]) != 0
    assert not output.exists()
    return capsys.readouterr().err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def hf_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids.unsqueeze(0)).logits[0]


@pytest.mark.parametrize(
    "changes", [{}, {"rope_scaling": LLAMA3, "rope_theta": 500000.0}, {"tie_word_embeddings": True}]
)
def test_metas_model_computes_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_model(tmp_path / "hf", "llama", **{"tie_word_embeddings": False, **changes})
    meta = convert(tmp_path / "hf", tmp_path / "meta", "meta")
    ids = torch.randint(0, 300, (64,), generator=torch.Generator().manual_seed(1))
    assert (meta_llama.logits(meta, ids) - hf_logits(tmp_path / "hf", ids)).abs().max() < 1e-5
    back = convert(meta, tmp_path / "back", "hf")
    assert_same(weights(tmp_path / "hf"), weights(back))
    before, after = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "hf", back))
    assert after.pop("max_position_embeddings") in (4096, 131072)  # params.json has none
    shared = after.keys() & before.keys() - {"torch_dtype", "dtype", "pad_token_id"}
    assert {name: after[name] for name in shared} == {name: before[name] for name in shared}
    assert {"hidden_size", "intermediate_size", "rope_theta", "rope_scaling", "tie_word_embeddings"} <= shared


def test_the_file_is_a_torch_save_file_to_every_reader(meta: Path) -> None:
    path = meta / "consolidated.00.pth"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    mapped = torch.load(path, mmap=True, weights_only=True)
    assert_same(torch.load(path, weights_only=True), mapped)


def test_shards_of_several_processes_are_joined(meta: Path, source: Path, tmp_path: Path) -> None:
    whole = torch.load(meta / "consolidated.00.pth", weights_only=True)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    for file in meta.iterdir():
        if file.suffix != ".pth":
            (sharded / file.name).write_bytes(file.read_bytes())
    for rank in range(2):
        shard = {}
        for name, tensor in whole.items():
            by_columns = name.endswith((".wo.weight", ".w2.weight", "tok_embeddings.weight"))  # as Llama 2's
            part = tensor.chunk(2, dim=1 if by_columns else 0)[rank] if tensor.dim() > 1 else tensor
            shard[name] = part.clone()
        shard["rope.freqs"] = torch.arange(8.0)  # computed and not needed
        torch.save(shard, sharded / f"consolidated.{rank:02}.pth")
    assert_same(weights(convert(sharded, tmp_path / "back", "hf")), weights(source))


def test_a_missing_shard_is_named(meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in meta.iterdir():
        target = "consolidated.01.pth" if file.suffix == ".pth" else file.name
        (broken / target).write_bytes(file.read_bytes())
    assert "incomplete: its shards are consolidated.01.pth; they should be consolidated.00.pth" in refusal(
        capsys, broken, tmp_path / "out", "hf"
    )


@pytest.mark.parametrize("size", [1, 100, 176, 683, 8192, 11008, 14336, 28672, 53248])
@pytest.mark.parametrize("dim", [64, 2048, 4096, 16384])
def test_params_give_the_size_of_the_feed_forward_layers(dim: int, size: int) -> None:
    fields = ffn_params(dim, size)
    assert ffn_size(dim, fields["multiple_of"], fields.get("ffn_dim_multiplier")) == size


def test_published_models_get_their_published_multiplier() -> None:
    assert ffn_params(4096, 11008) == {"multiple_of": 256}  # Llama 2 7B
    assert ffn_params(4096, 14336)["ffn_dim_multiplier"] == 1.3  # Llama 3 8B
    assert ffn_params(2048, 8192) == {"multiple_of": 256, "ffn_dim_multiplier": 1.5}  # Llama 3.2 1B


def test_nemo_and_meta_both_ways(source: Path, meta: Path, tmp_path: Path) -> None:
    nemo = convert(meta, tmp_path / "nemo", "nemo2")
    assert_same(weights(convert(nemo, tmp_path / "hf", "hf")), weights(source))
    again = convert(nemo, tmp_path / "meta", "meta")
    one, other = (torch.load(f / "consolidated.00.pth", weights_only=True) for f in (meta, again))
    assert_same(one, other)
    assert json.loads((again / "params.json").read_text()) == json.loads((meta / "params.json").read_text())


@pytest.mark.parametrize(
    ("form", "name"),
    [("torch", "w.pt"), ("safetensors", "w.safetensors"), ("dcp", "w"), ("safetensors", "w")],
)
def test_bare_tensors_and_back(source: Path, tmp_path: Path, form: str, name: str) -> None:
    bare = convert(source, tmp_path / name, form)
    if form == "torch":
        assert_same(torch.load(bare, weights_only=True), weights(source))
    if form == "dcp":
        assert_same(_read_by_torch(bare, tmp_path / "whole.pt"), weights(source))
    for target in ("hf", "nemo2", "meta"):
        made = convert(bare, tmp_path / f"again-{target}", target, "--config-from", str(source))
        back = made if target == "hf" else convert(made, tmp_path / f"back-{target}", "hf")
        assert_same(weights(back), weights(source))


def test_a_trainers_distributed_checkpoint_becomes_one_file(meta: Path, source: Path, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    model = torch.load(meta / "consolidated.00.pth", weights_only=True)
    state = {"model": model, "optimizer": {"state": {"norm.weight": {"exp_avg": torch.ones(64)}}}, "step": 7}
    dcp.save(state, checkpoint_id=tmp_path / "step-7", no_dist=True)
    everything = torch.load(convert(tmp_path / "step-7", tmp_path / "all.pt", "torch"), weights_only=True)
    assert "optimizer.state.norm.weight.exp_avg" in everything
    one = convert(tmp_path / "step-7", tmp_path / "model.pt", "torch", "--weights-only")
    assert_same(torch.load(one, weights_only=True), model)
    hf = convert(tmp_path / "step-7", tmp_path / "hf", "hf", "--config-from", str(source))
    assert_same(weights(hf), weights(source))


def test_a_trainers_file_loses_its_training_state_when_asked(source: Path, tmp_path: Path) -> None:
    state = {"model": weights(source), "optimizer": {"exp_avg": torch.zeros(3)}, "epoch": 2}
    torch.save(state, tmp_path / "last.ckpt")
    one = convert(tmp_path / "last.ckpt", tmp_path / "model.safetensors", "safetensors", "--weights-only")
    assert_same(load_file(one), weights(source))


def test_a_nemo_checkpoint_in_one_file_has_the_models_names(source: Path, tmp_path: Path) -> None:
    nemo = convert(source, tmp_path / "nemo", "nemo2")
    state = torch.load(convert(nemo, tmp_path / "w.pt", "torch"), weights_only=True)
    assert "decoder.layers.1.self_attention.linear_qkv.weight" in state
    assert state["embedding.word_embeddings.weight"].shape[1] == 64


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w"])
def test_a_nemo_checkpoints_tensors_and_back(source: Path, tmp_path: Path, name: str) -> None:
    nemo = convert(source, tmp_path / "nemo", "nemo2")
    form = {".pt": "torch", ".safetensors": "safetensors"}.get(Path(name).suffix, "dcp")
    bare = convert(nemo, tmp_path / name, form)
    assert_same(weights(convert(bare, tmp_path / "hf", "hf", "--config-from", str(source))), weights(source))
    again = convert(bare, tmp_path / "again", "nemo2", "--config-from", str(source))
    assert_same(weights(convert(again, tmp_path / "back", "hf")), weights(source))


def test_the_weights_of_a_nemo_checkpoint_without_its_context(source: Path, tmp_path: Path) -> None:
    (convert(source, tmp_path / "nemo", "nemo2") / "weights").rename(tmp_path / "weights")
    made = convert(tmp_path / "weights", tmp_path / "hf", "hf", "--config-from", str(source))
    assert_same(weights(made), weights(source))


def test_what_cannot_be_converted_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = convert(source, tmp_path / "w.pt", "torch")
    assert "--config-from DIR" in refusal(capsys, bare, tmp_path / "hf", "hf")
    assert "ends in .pt" in refusal(capsys, source, tmp_path / "folder", "torch")
    assert "this is a file name" in refusal(capsys, source, tmp_path / "new.pt", "meta")
    assert "already" in refusal(capsys, source, tmp_path / "copy", "hf")
    write_model(tmp_path / "qwen2", "qwen2")
    assert "model_type is 'qwen2'" in refusal(capsys, tmp_path / "qwen2", tmp_path / "meta", "meta")
    write_model(tmp_path / "larger", "llama", num_hidden_layers=3, tie_word_embeddings=False)
    message = refusal(capsys, bare, tmp_path / "wrong", "hf", "--config-from", str(tmp_path / "larger"))
    assert "without a source: 6 parameters of the model: decoder.layers.2." in message


def test_a_file_is_replaced_only_with_overwrite(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "w.pt"
    output.write_bytes(b"precious")
    assert main([str(source), str(output), "--to", "torch"]) == 2
    assert output.read_bytes() == b"precious"
    convert(source, output, "torch", "--overwrite")
    assert_same(torch.load(output, weights_only=True), weights(source))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pt", "w.pt.conversion.json"]


def _read_by_torch(folder: Path, into: Path) -> dict[str, torch.Tensor]:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(folder, into)
    return torch.load(into, weights_only=True)
