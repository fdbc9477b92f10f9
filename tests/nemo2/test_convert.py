"""Hugging Face → NeMo 2 → Hugging Face: every weight returns bit for bit, and both sides compute the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forkserver import ForkServer
from nemo2.small_models import write_model, write_tokenizer

REPOSITORY = Path(__file__).parents[2]
TO_NEMO2 = REPOSITORY / "train/llm/ckpt_conversion/convert_from_hf_to_nemo2.py"
TO_HF = REPOSITORY / "ckpt_conversion/convert_from_nemo2_to_hf.py"

# Of logits up to about 1. In bfloat16 both round at every layer, in another order.
TOLERANCE = {"float32": 1e-6, "bfloat16": 2**-7}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,  # shorter than the prompt
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaModel", {}),
    "llama bf16": ("llama", "LlamaModel", {"dtype": "bfloat16"}),
    "llama 3.2": ("llama", "LlamaModel", {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
    "more rows than tokens": ("llama", "LlamaModel", {"vocab_size": 500}),
    "qwen2": ("qwen2", "Qwen2Model", {}),
    "qwen2 tied bf16": ("qwen2", "Qwen2Model", {"tie_word_embeddings": True, "dtype": "bfloat16"}),
    "qwen3": ("qwen3", "Qwen3Model", {"head_dim": 128, "tie_word_embeddings": True}),
    "qwen3 moe": (
        "qwen3_moe",
        "Qwen3Model",
        {
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "mistral": ("mistral", "MistralModel", {"sliding_window": 5, "head_dim": 16}),
    "mixtral": ("mixtral", "MixtralModel", {"num_local_experts": 8}),
    "gemma": ("gemma", "GemmaModel", {"head_dim": 256}),
    "phi3": ("phi3", "Phi3Model", {"num_key_value_heads": 4}),
    "starcoder": ("gpt_bigcode", "StarcoderModel", {"intermediate_size": 256, "num_key_value_heads": 1}),
    "starcoder2": ("starcoder2", "Starcoder2Model", {}),
    "nemotron": ("nemotron", "NemotronModel", {}),
    "llama nemotron": ("llama", "LlamaNemotronModel", {"rope_scaling": LLAMA3}),
}


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def assert_same_weights(before: Path, after: Path) -> None:
    import torch

    expected, got = tensors(before), tensors(after)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


def run(script: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )


@pytest.mark.parametrize(("kind", "model_class", "changes"), MODELS.values(), ids=MODELS)
def test_round_trip(
    fork_server: ForkServer, tmp_path: Path, kind: str, model_class: str, changes: dict[str, Any]
) -> None:
    source = tmp_path / "source"
    write_model(source, kind, **changes)
    arguments = {"hf": str(source), "work": str(tmp_path / "work"), "model_class": model_class}
    (logits,) = fork_server.run("nemo2.convert_job:round_trip", arguments)
    returned = tmp_path / "work" / "hf"
    assert_same_weights(source, returned)
    assert logits["hf and hf"] == 0.0
    assert logits["nemo and hf"] <= TOLERANCE[changes.get("dtype", "float32")]
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (returned / name).read_bytes() == (source / name).read_bytes()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, returned))
    assert after["dtype"] == before["dtype"]
    assert after.get("rope_scaling") == before.get("rope_scaling")
    assert after.get("sliding_window") == before.get("sliding_window")


@pytest.mark.parametrize(
    "strategy",
    [
        {"tensor_model_parallel_size": 2, "sequence_parallel": True},
        {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    ],
    ids=["tensor and sequence parallel", "virtual pipeline"],
)
def test_a_trained_checkpoint_exports(
    fork_server: ForkServer, tmp_path: Path, strategy: dict[str, Any]
) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    corpus = str(tmp_path / "corpus")
    fork_server.run("nemo2.train_job:write_corpus", {"prefix": corpus})
    training = {
        "folder": str(tmp_path / "run"),
        "tokenizer": str(tmp_path / "tokenizer"),
        "corpus": corpus,
        "steps": 2,
        "save_at": 2,
        "precision": "32",
        "strategy": strategy,
        "model": {"overlap_p2p_comm": True, "batch_p2p_comm": False}
        if "pipeline_model_parallel_size" in strategy
        else {},
    }
    fork_server.run("nemo2.train_job:train", training, nproc=2)
    checkpoint = max((tmp_path / "run").rglob("*-last"))
    exported = str(tmp_path / "hf")
    (logits,) = fork_server.run("nemo2.convert_job:export", {"nemo": str(checkpoint), "hf": exported})
    assert logits["nemo and hf"] <= TOLERANCE["float32"] * logits["size"]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    prompt = tokenizer("A checkpoint", return_tensors="pt")["input_ids"]
    assert model.generate(prompt, max_new_tokens=5, do_sample=False).shape[1] > prompt.shape[1]


def test_the_commands(tmp_path: Path) -> None:
    """A downloaded folder with sub-folders, there and back, named classes and overwriting."""
    shared = Path("/tmp/nemo_tokenizer")  # where NeMo's own importers put every tokenizer
    existed = shared.exists()
    source, nemo, back = tmp_path / "source", tmp_path / "nemo", tmp_path / "back"
    write_model(source, "llama", dtype="bfloat16")
    (source / ".cache" / "huggingface").mkdir(parents=True)
    (source / "original").mkdir()
    (source / "original" / "params.json").write_text("{}")
    done = run(TO_NEMO2, "--source", source, "--output_path", nemo, "--model-name", "LlamaModel")
    assert done.returncode == 0, done.stderr
    assert "llama → LlamaModel" in done.stderr
    assert sorted(p.name for p in nemo.iterdir()) == ["context", "weights"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nemo", "source"]
    assert "Traceback" not in done.stderr
    assert "NeMo W" not in done.stderr
    assert shared.exists() == existed

    done = run(TO_HF, "--source", nemo, "--output-path", back)
    assert done.returncode == 0, done.stderr
    assert_same_weights(source, back)
    refused = run(TO_HF, "--source", nemo, "--output-path", back)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    (back / "config.json").write_text("{}")
    done = run(TO_HF, "--source", nemo, "--output-path", back, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert json.loads((back / "config.json").read_text())["model_type"] == "llama"


def test_what_nemo_would_lose_fails_and_leaves_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "source", "llama", attention_bias=True)
    done = run(TO_NEMO2, "--source", tmp_path / "source", "--output-path", tmp_path / "nemo")
    assert done.returncode == 1
    assert "8 tensors of the source have no place: model.layers.0.self_attn.k_proj.bias" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
    log = Path(done.stderr.split("The log is ")[1].strip())
    assert "every_tensor_mapped" in log.read_text()
    log.unlink()


def test_a_named_configuration_of_another_size_is_refused(fork_server: ForkServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_model(source, "llama")
    arguments = {"hf": str(source), "work": str(tmp_path / "work"), "config_class": "Llama32Config1B"}
    (message,) = fork_server.run("nemo2.convert_job:refused_config", arguments)
    assert "Llama32Config1B does not fit the source, which has num_layers 2 instead of 16" in message


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "source", "llama")
    process = subprocess.Popen(
        [sys.executable, TO_NEMO2, "--source", tmp_path / "source", "--output-path", tmp_path / "nemo"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "loading NeMo" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
