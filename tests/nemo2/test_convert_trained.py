"""Conversions of checkpoints that NeMo trained with any layout, and training that starts from a conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO
from nemo2.small_models import write_tokenizer

from nemolaunch.checkpoint.convert.convert import convert

LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor and sequence parallel": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "virtual pipeline": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    "data parallel": {},
    "tensor and pipeline parallel": {
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "sequence_parallel": True,
    },
}
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def corpus(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("corpus")
    write_tokenizer(folder / "tokenizer")
    fork_server.run("nemo2.train_job:write_corpus", {"prefix": str(folder / "corpus")})
    return {"tokenizer": str(folder / "tokenizer"), "corpus": str(folder / "corpus")}


@pytest.mark.parametrize("strategy", LAYOUTS.values(), ids=LAYOUTS)
def test_a_trained_checkpoint(
    fork_server: ForkServer, tmp_path: Path, corpus: dict[str, str], strategy: dict[str, Any]
) -> None:
    """Its export equals NeMo's own, computes what NeMo computes, and generates text."""
    ranks = strategy.get("tensor_model_parallel_size", 1) * strategy.get("pipeline_model_parallel_size", 1)
    p2p = {"overlap_p2p_comm": True, "batch_p2p_comm": False}
    training = {
        "folder": str(tmp_path / "run"),
        **corpus,
        "steps": 2,
        "save_at": 2,
        "precision": "32",
        "strategy": strategy,
        "model": p2p if "virtual_pipeline_model_parallel_size" in strategy else {},
    }
    fork_server.run("nemo2.train_job:train", training, nproc=max(ranks, 2))
    checkpoint = max((tmp_path / "run").rglob("*-last"))
    convert(checkpoint, tmp_path / "hf", "hf")
    arguments = {"hf": str(tmp_path / "hf"), "nemo": str(checkpoint)}
    (logits,) = fork_server.run("nemo2.convert_job:logits", arguments)
    assert logits["difference"] <= ROUNDING * max(logits["size"], 1)
    theirs = {"nemo": str(checkpoint), "hf": str(tmp_path / "theirs")}
    fork_server.run("nemo2.convert_job:nemo_export", theirs)
    expected = tensors(tmp_path / "theirs")
    rows = expected["lm_head.weight"].shape[0]  # NeMo's exporter cuts the vocabulary to the tokenizer's size
    got = {
        n: t[:rows] if n.endswith(("embed_tokens.weight", "lm_head.weight")) else t
        for n, t in tensors(tmp_path / "hf").items()
    }
    assert_same_tensors(expected, got)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    prompt = tokenizer("A checkpoint", return_tensors="pt")["input_ids"]
    written = model.generate(prompt, max_new_tokens=5, do_sample=False)
    assert isinstance(written, torch.Tensor)
    assert written.shape[1] > prompt.shape[1]


def test_training_from_a_converted_model(
    fork_server: ForkServer, tmp_path: Path, corpus: dict[str, str]
) -> None:
    """Two tensor parallel ranks start from the converted weights: the first loss is the model's own."""
    ZOO["llama"].write(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "nemo", "nemo2")
    sizes = {
        "num_layers": 2,
        "rotary_base": 10000.0,
        "layernorm_epsilon": 1e-6,
        "vocab_size": json.loads((tmp_path / "source" / "config.json").read_text())["vocab_size"],
    }
    training = {**corpus, "steps": 2, "precision": "32", "model": sizes, "start": str(tmp_path / "nemo")}
    strategy = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
    one, _ = fork_server.run(
        "nemo2.train_job:train", {**training, "folder": str(tmp_path / "tp2"), "strategy": strategy}, nproc=2
    )
    (alone,) = fork_server.run("nemo2.train_job:train", {**training, "folder": str(tmp_path / "tp1")})
    (fresh,) = fork_server.run(
        "nemo2.train_job:train", {**training, "start": None, "folder": str(tmp_path / "fresh")}
    )
    assert one["reduced_train_loss"] == pytest.approx(alone["reduced_train_loss"], abs=1e-5)
    assert abs(one["reduced_train_loss"][0] - fresh["reduced_train_loss"][0]) > 1e-3


def test_nemo_exports_what_was_converted(fork_server: ForkServer, tmp_path: Path) -> None:
    """`llm.export_ckpt` and `RestoreConfig` accept the checkpoint as one of NeMo's."""
    ZOO["llama"].write(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "nemo", "nemo2")
    fork_server.run(
        "nemo2.convert_job:nemo_export", {"nemo": str(tmp_path / "nemo"), "hf": str(tmp_path / "theirs")}
    )
    assert_same_tensors(tensors(tmp_path / "source"), tensors(tmp_path / "theirs"))
    (config,) = fork_server.run("nemo2.convert_job:restored", {"nemo": str(tmp_path / "nemo")})
    assert config["class"] == "LlamaConfig"
    assert (config["num_layers"], config["seq_length"]) == ("2", "256")
    assert config["params_dtype"] == "torch.float32"
