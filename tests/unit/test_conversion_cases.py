"""Unusual models, damaged models, full disks: the result or the error. Does not need NeMo."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO
from safetensors.torch import save_file

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.checkpoint.convert.prepare import prepare_import
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.nemo2.folder import read_folder
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.errors import NemolaunchError, UsageError


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama and its conversion, which tests must not change."""
    folder = tmp_path_factory.mktemp("llama")
    ZOO["llama bf16"].write(folder / "source")
    convert(folder / "source", folder / "nemo", "nemo2")
    return folder


@pytest.fixture
def source(llama: Path, tmp_path: Path) -> Path:
    """A copy of the Llama."""
    copy = tmp_path / "source"
    copy.mkdir()
    for file in (llama / "source").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def change_context(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "context" / "model.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"].update(changes)
    path.write_text(yaml.safe_dump(content))


def refused(source: Path, to: str = "nemo2", options: Options | None = None) -> str:
    output = source.with_name("refused")
    with pytest.raises(NemolaunchError) as caught:
        convert(source, output, to, options)
    assert not output.exists()
    assert not list(source.parent.glob(".refused.partial*"))
    return str(caught.value)


def test_one_wrong_bit_is_found(llama: Path, tmp_path: Path) -> None:
    conversion = prepare_import(hf_folder.read_folder(llama / "source"))
    conversion.write(tmp_path / "nemo", lambda count: None)
    stored = DcpSource(tmp_path / "nemo" / "weights")
    chunk = stored.chunks("module.decoder.layers.mlp.linear_fc2.weight")[1]
    content = bytearray(chunk.span.path.read_bytes())
    content[chunk.span.start + chunk.span.length // 2] ^= 1
    chunk.span.path.write_bytes(content)
    checks = {check.name: check for check in conversion.verify(tmp_path / "nemo", lambda count: None)}
    assert checks["tensors"].differences == [
        "model.layers.1.mlp.down_proj.weight differs in 1 of 8,192 elements"
    ]
    assert checks["config"].passed


def test_a_wrong_field_is_found(llama: Path, tmp_path: Path) -> None:
    conversion = prepare_import(hf_folder.read_folder(llama / "source"))
    conversion.write(tmp_path / "nemo", lambda count: None)
    change_context(tmp_path / "nemo", rotary_base=5000.0)
    (tmp_path / "nemo" / "context" / "tokenizer" / "tokenizer.json").write_text("{}")
    checks = {check.name: check for check in conversion.verify(tmp_path / "nemo", lambda count: None)}
    assert checks["config"].differences == ["rope_theta: 10000.0 became 5000.0"]
    assert checks["tokenizer"].differences == ["tokenizer.json differs"]


def test_a_failed_check_leaves_only_the_report(source: Path) -> None:
    def compare(*_: Any) -> Check:
        return Check("logits", 12, ["logits up to 3 differ by up to 15"])

    message = refused(source, options=Options(compare=compare))
    assert "logits: logits up to 3 differ by up to 15" in message
    report = json.loads(source.with_name("refused.conversion.json").read_text())
    assert report["verdict"] == "failed"
    assert report["checks"]["logits"]["outcome"] == "failed"
    assert report["checks"]["tensors"]["outcome"] == "passed"


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from nemolaunch.cli.main import main
sys.exit(main(["convert", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("to", ["nemo2", "hf"])
def test_a_file_that_cannot_grow(llama: Path, tmp_path: Path, to: str) -> None:
    """The system refuses to write more, as on a full disk."""
    source = llama / ("source" if to == "nemo2" else "nemo")
    words = [str(source), str(tmp_path / "out"), "--to", to]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: writing {tmp_path / 'out'} failed: File too large")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_wherever_it_does(llama: Path, tmp_path: Path) -> None:
    """A small disk with room for the tensors, but not for the rest of the checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    needed = sum(file.stat().st_size for file in (llama / "nemo").rglob("*") if file.is_file())
    besides = needed - sum(tensor.nbytes for tensor in tensors(llama / "source").values())
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={needed + 65536}", "tmpfs", disk]).returncode:
        pytest.skip("mounting needs root")
    try:
        for spare in range(0, besides + 65536, (besides + 65536) // 12):
            (disk / "filler").write_bytes(bytes(spare))
            with contextlib.suppress(NemolaunchError):
                convert(llama / "source", disk / "nemo", "nemo2", Options(verify=False, overwrite=True))
            assert {path.name for path in disk.iterdir()} <= {"filler", "nemo", "nemo.conversion.json"}
            shutil.rmtree(disk / "nemo", ignore_errors=True)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_model_larger_than_the_disk(source: Path) -> None:
    """Known from the header, before a tensor is read. The file is sparse."""
    rows = 10**9
    change_json(source / "config.json", vocab_size=rows, tie_word_embeddings=True)
    kept = {
        name: t
        for name, t in tensors(source).items()
        if name not in ("lm_head.weight", "model.embed_tokens.weight")
    }
    (source / "model.safetensors").unlink()
    save_file(kept, source / "model-1.safetensors")
    header = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [rows, 64], "data_offsets": [0, rows * 128]}}
    ).encode()
    large = source / "model-2.safetensors"
    large.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(large, 8 + len(header) + rows * 128)
    weights = dict.fromkeys(kept, "model-1.safetensors") | {"model.embed_tokens.weight": large.name}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    message = refused(source, options=Options(verify=False))
    large.unlink()
    assert "119.2 GiB are needed" in message


def test_an_unreadable_shard(source: Path) -> None:
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").mkdir()
    (source / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "model.safetensors"}})
    )
    assert "model.safetensors" in refused(source)


def test_a_missing_tensor_is_named(source: Path) -> None:
    kept = {n: t for n, t in tensors(source).items() if n != "model.layers.1.self_attn.k_proj.weight"}
    save_file(kept, source / "model.safetensors")
    assert "missing: 1 tensor of the source: model.layers.1.self_attn.k_proj.weight" in refused(source)


def test_a_missing_layer_is_named(source: Path) -> None:
    kept = {n: t for n, t in tensors(source).items() if "layers.1." not in n}
    save_file(kept, source / "model.safetensors")
    message = refused(source)
    assert "parameters of the model: decoder.layers.1." in message


def test_a_tensor_of_another_shape(source: Path) -> None:
    change_json(source / "config.json", intermediate_size=96)
    message = refused(source)
    assert (
        "decoder.layers.0.mlp.linear_fc1.weight is [256, 64], but the configuration says [192, 64]" in message
    )


def test_a_missing_output_layer_is_named_with_the_fix(source: Path) -> None:
    kept = {n: t for n, t in tensors(source).items() if n != "lm_head.weight"}
    save_file(kept, source / "model.safetensors")
    message = refused(source)
    assert "lm_head.weight is missing" in message
    assert '"tie_word_embeddings": true' in message


def test_tied_embeddings_that_differ(source: Path) -> None:
    change_json(source / "config.json", tie_word_embeddings=True)
    assert "ties the embeddings, but lm_head.weight differs" in refused(source)


def test_a_tied_model_with_a_stored_output_layer(source: Path, tmp_path: Path) -> None:
    content = tensors(source)
    content["lm_head.weight"] = content["model.embed_tokens.weight"].clone()
    save_file(content, source / "model.safetensors")
    change_json(source / "config.json", tie_word_embeddings=True)
    report = convert(source, tmp_path / "nemo", "nemo2")
    assert report["left_out"] == ["lm_head.weight"]
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    del content["lm_head.weight"]
    assert_same_tensors(content, tensors(tmp_path / "back"))


def test_rotary_frequencies_are_accepted_but_not_written(source: Path, tmp_path: Path) -> None:
    content = tensors(source)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    save_file({**content, name: torch.ones(8)}, source / "model.safetensors")
    assert convert(source, tmp_path / "nemo", "nemo2")["left_out"] == [name]
    assert not [name for name in DcpSource(tmp_path / "nemo" / "weights").tensors if "freq" in name]
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(content, tensors(tmp_path / "back"))


def test_weights_in_files_of_torch_save(source: Path, tmp_path: Path) -> None:
    content = tensors(source)
    (source / "model.safetensors").unlink()
    names = list(content)
    parts = {"pytorch_model-1.bin": names[:9], "pytorch_model-2.bin": names[9:]}
    for file, part in parts.items():
        torch.save({name: content[name] for name in part}, source / file)
    weights = {name: file for file, part in parts.items() for name in part}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weights}))
    convert(source, tmp_path / "nemo", "nemo2")
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(content, tensors(tmp_path / "back"))


def test_a_config_of_transformers_5(source: Path, tmp_path: Path) -> None:
    path = source / "config.json"
    content = json.loads(path.read_text())
    del content["rope_theta"], content["rope_scaling"]
    scaling = {"rope_type": "linear", "factor": 2.0}
    path.write_text(json.dumps({**content, "rope_parameters": {"rope_theta": 777.0, **scaling}}))
    convert(source, tmp_path / "nemo", "nemo2")
    fields = read_folder(tmp_path / "nemo").config.fields
    assert (fields["rotary_base"], fields["seq_len_interpolation_factor"]) == (777.0, 2.0)
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (back["rope_theta"], back["rope_scaling"]) == (777.0, scaling)


def test_padding_of_the_vocabulary_is_omitted(tmp_path: Path) -> None:
    """As for a model whose configuration takes the vocabulary size from the tokenizer."""
    model = dataclasses.replace(ZOO["llama"], changes={"vocab_size": 512})
    model.write(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "nemo", "nemo2")
    change_context(tmp_path / "nemo", vocab_size=None)
    report = convert(tmp_path / "nemo", tmp_path / "back", "hf")
    expected = tensors(tmp_path / "source")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        expected[name] = expected[name][:384]
    assert_same_tensors(expected, tensors(tmp_path / "back"))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["vocab_size"] == 384
    assert "the last 128 of 512 rows" in report["changed"][0]


def test_a_checkpoint_of_an_fp8_run(llama: Path, tmp_path: Path) -> None:
    """Its weights are stored in bfloat16; fp8 only concerns the run."""
    convert(llama / "source", tmp_path / "nemo", "nemo2")
    change_context(tmp_path / "nemo", fp8="hybrid", fp8_param=True, fp8_recipe="delayed")
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(tensors(llama / "source"), tensors(tmp_path / "back"))
    assert "fp8" not in (tmp_path / "back" / "config.json").read_text()


def test_what_hugging_face_cannot_represent_is_refused(llama: Path, tmp_path: Path) -> None:
    convert(llama / "source", tmp_path / "nemo", "nemo2")
    change_context(tmp_path / "nemo", normalization="LayerNorm", rotary_percent=0.5)
    message = refused(tmp_path / "nemo", to="hf")
    assert "normalization is 'LayerNorm'; the Hugging Face model has 'RMSNorm'" in message
    assert "rotary_percent is 0.5" in message


def test_a_tokenizer_that_is_elsewhere(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(llama / "source", tmp_path / "nemo", "nemo2")
    path = tmp_path / "nemo" / "context" / "model.yaml"
    content = yaml.safe_load(path.read_text())
    content["tokenizer"]["pretrained_model_name"] = "/home/someone/tokenizer"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="use --tokenizer DIR"):
        convert(tmp_path / "nemo", tmp_path / "back", "hf")
    convert(tmp_path / "nemo", tmp_path / "back", "hf", Options(tokenizer=llama / "source"))
    assert (tmp_path / "back" / "tokenizer.json").is_file()
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back["bos_token_id"] == 0


def test_a_model_folder_whose_tokenizer_is_elsewhere(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert "--tokenizer" in refused(source)
    convert(source, tmp_path / "nemo", "nemo2", Options(tokenizer=tmp_path))
    copied = tmp_path / "nemo" / "context" / "tokenizer" / "tokenizer.json"
    assert copied.read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_deepseek_in_float8(tmp_path: Path) -> None:
    """As published: float8 in blocks of 128 with scales, which other tools must unpack first."""
    source = tmp_path / "source"
    ZOO["deepseek v3"].write(source)
    content, expected = tensors(source), {}
    for name, tensor in list(content.items()):
        expected[name] = tensor
        if name.endswith("_proj.weight"):
            scale = torch.rand(-(-tensor.shape[0] // 128), -(-tensor.shape[1] // 128)) + 0.5
            small = (tensor.float() / 4).to(torch.float8_e4m3fn)
            content[name], content[name + "_scale_inv"] = small, scale
            full = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[
                : tensor.shape[0], : tensor.shape[1]
            ]
            expected[name] = (small.float() * full).to(torch.bfloat16)
    further = {
        "model.layers.3.eh_proj.weight": torch.zeros(4, 8),
        "model.layers.3.enorm.weight": torch.ones(4),
    }
    save_file({**content, **further}, source / "model.safetensors")
    change_json(
        source / "config.json", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}
    )
    report = convert(source, tmp_path / "nemo", "nemo2")
    assert report["left_out"] == sorted(further)
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(expected, tensors(tmp_path / "back"))
    assert "quantization_config" not in (tmp_path / "back" / "config.json").read_text()


def test_gpt_oss_in_mxfp4(tmp_path: Path) -> None:
    """Experts as published, in 4 bits; the export has the values that transformers computes from them."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    source = tmp_path / "source"
    model = dataclasses.replace(ZOO["gpt oss"], changes={**ZOO["gpt oss"].changes, "intermediate_size": 64})
    model.write(source)
    content, expected = tensors(source), {}
    torch.manual_seed(0)
    for name, tensor in list(content.items()):
        expected[name] = tensor
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, width, rows = tensor.shape
            blocks = torch.randint(0, 256, (experts, rows, width // 32, 16), dtype=torch.uint8)
            scales = torch.randint(118, 124, (experts, rows, width // 32), dtype=torch.uint8)
            del content[name]
            content[name + "_blocks"], content[name + "_scales"] = blocks, scales
            expected[name] = convert_moe_packed_tensors(blocks, scales).contiguous()
    save_file(content, source / "model.safetensors")
    convert(source, tmp_path / "nemo", "nemo2")
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(expected, tensors(tmp_path / "back"))


def test_the_language_model_of_a_vision_model(tmp_path: Path) -> None:
    from nemo2.small_models import write_tokenizer
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    source = tmp_path / "source"
    rows = write_tokenizer(source)
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": rows,
        "max_position_embeddings": 256,
        "sliding_window": 16,
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text, {**vision, "image_size": 28, "patch_size": 14})
    Gemma3ForConditionalGeneration(config).save_pretrained(source)
    content = tensors(source)
    language = {
        "model." + name.removeprefix("language_model.").removeprefix("model."): tensor
        for name, tensor in content.items()
        if name.startswith("language_model.")
    }
    assert language
    report = convert(source, tmp_path / "nemo", "nemo2")
    assert any(name.startswith("vision_tower.") for name in report["left_out"])
    convert(tmp_path / "nemo", tmp_path / "back", "hf")
    assert_same_tensors(language, tensors(tmp_path / "back"))
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (back["model_type"], back["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
