"""Weights as people have them: one test a public report, with its number, the right value and where that comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from check_jobs import findings
from nemo2.convert_support import tensors
from nemo2.small_models import write_model
from safetensors.torch import save_file

from nemolaunch.api.convert import convert
from nemolaunch.facts.checkpoint import look_at_checkpoint

PROBE = "model.layers.0.self_attn.q_proj.weight"


def llama(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    write_model(folder, "llama", "bfloat16", num_hidden_layers=1, **changes)
    return tensors(folder)


def converted(source: Path, name: str = PROBE) -> torch.Tensor:
    """A tensor after a conversion to NeMo 2 and back."""
    nemo, back = source.with_name("nemo"), source.with_name("back")
    convert(source, nemo, to="nemo2", verify="bits")
    convert(nemo, back, to="hf", verify="bits")
    return tensors(back)[name]


def test_a_model_saved_anew_over_an_older_sharded_one(tmp_path: Path) -> None:
    """Neph0s/CoSER#3, huggingface/transformers#26729, Blaizzy/mlx-vlm#1827.

    Right is what transformers loads: model.safetensors comes before any index (modeling_utils in 4.57).
    """
    from transformers import AutoModelForCausalLM

    source = tmp_path / "source"
    new = llama(source)
    shard = "model-00001-of-00001.safetensors"
    save_file({name: tensor + 1 for name, tensor in new.items()}, source / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(new, shard)}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype="auto").state_dict()
    assert torch.equal(converted(source), theirs[PROBE])
    report = json.loads((tmp_path / "nemo.conversion.json").read_text())
    assert "not read: model-00001-of-00001.safetensors, model.safetensors.index.json" in report["changed"][0]


def test_one_float8_scale_for_a_tensor(tmp_path: Path) -> None:
    """NVIDIA/Model-Optimizer#1962: `weight_scale_inv` is a single number. Right is weight times scale in bfloat16."""
    source = tmp_path / "source"
    content = llama(source)
    small = (content[PROBE].float() / 0.0007).to(torch.float8_e4m3fn)
    scaled = {**content, PROBE: small, PROBE + "_scale_inv": torch.tensor(0.0007)}
    save_file(scaled, source / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    assert torch.equal(converted(source), (small.float() * torch.tensor(0.0007)).bfloat16())


def test_float8_scales_of_compressed_tensors(tmp_path: Path) -> None:
    """huggingface/transformers#47145: `weight_scale` has one number for each row. Right is their product."""
    source = tmp_path / "source"
    content = llama(source)
    scales = content[PROBE].abs().amax(1, keepdim=True).float() / 448
    small = (content[PROBE].float() / scales).to(torch.float8_e4m3fn)
    save_file(
        {**content, PROBE: small, PROBE + "_scale": scales}, source / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    (source / "config.json").write_text(json.dumps(config))
    assert torch.equal(converted(source), (small.float() * scales).bfloat16())


def test_llama_31_weights_under_a_llama_3_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA-NeMo/Speech#11360: the weights are right, the settings are not. Right is to name scale_factor.

    Its value is that of config.json's rope_scaling; Llama 3's configuration class does not have the field.
    """
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    source, nemo = tmp_path / "source", tmp_path / "nemo"
    llama(source, rope_theta=500000.0, rope_scaling=scaling, rms_norm_eps=1e-5)
    convert(source, nemo, to="nemo2", verify="bits")
    model = tmp_path / "model.yaml"
    model.write_text(
        "base: llama3\nnum_layers: 1\nhidden_size: 64\nnum_attention_heads: 4\nnum_query_groups: 2\n"
        "ffn_hidden_size: 128\nvocab_size: 384\nrotary_base: 500000\n"
    )
    start = {"weights": look_at_checkpoint(str(nemo))}
    told = findings(str(model), nemo_model=str(nemo), changed=start)
    (finding,) = [finding for finding in told if finding.code.startswith("checkpoint-")]
    assert "its scale_factor is 8.0, the job's is not set" in finding.message
    assert "with base: llama31_8b" in finding.message
    model.write_text(
        model.read_text().replace("llama3\n", "llama31\n")
        + "scale_factor: 8.0\nlow_freq_factor: 1.0\nhigh_freq_factor: 4.0\nold_context_len: 64\n"
    )
    told = findings(str(model), nemo_model=str(nemo), changed=start)
    assert not [finding.message for finding in told if finding.code.startswith("checkpoint-")]


def test_a_model_that_transformers_lacks_converts_without_logits(tmp_path: Path) -> None:
    """docs/convert.md: logits are left out, with the reason, where one of the models cannot run here."""
    from nemo2.model_zoo import ZOO

    ZOO["nemotron h"].write(tmp_path / "source")
    report = convert(tmp_path / "source", tmp_path / "nemo", to="nemo2")
    assert report["verdict"] == "passed"
    assert report["checks"]["logits"] == {
        "outcome": "skipped",
        "compared": 0,
        "skipped": "transformers has no class for nemotron_h",
    }
