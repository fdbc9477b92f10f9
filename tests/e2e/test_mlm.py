"""Masked language models: what is fed and learnt, in every layout, over a kill, and what a checkpoint says."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from e2e.jobs import planned, prepared, train
from forkserver import ForkServer, JobFailed

from nemolaunch.planning import Plan
from nemolaunch.run import metrics

# fp32; sums are taken in another order
TOLERANCE = 2e-5
MLM: dict[str, Any] = {"objective": "mlm", "mask_token": "<|reserved_special_token_3|>"}
VALIDATED: dict[str, Any] = {"limit_val_batches": 2, "val_check_interval": 5}

LAYOUTS: dict[str, dict[str, Any]] = {
    "TP2+SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2+VPP2": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    "CP2": {"context_parallel_size": 2},
    "DP2": {"num_gpus": 2},
    "DP2 without distributed optimizer, micro batch 2": {
        "num_gpus": 2,
        "disable_dist_optim": True,
        "micro_batch_size": 2,
    },
    "selective recompute, TP2": {"recompute_granularity": "selective", "tensor_model_parallel_size": 2},
}


def validations(plan: Plan) -> list[tuple[float, float]]:
    """Loss and masked accuracy of each validation."""
    rows = [row for row in metrics.read(plan.run.metrics) if "val_loss" in row]
    return [(row["val_loss"], row["val_masked_accuracy"]) for row in rows]


@pytest.fixture(scope="module")
def reference(
    fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], Plan]:
    """Weights to start from, and what a single process that starts from them records."""
    folder = tmp_path_factory.mktemp("weights")
    start = planned(folder, data, max_steps=1, **MLM)
    train(fork_server, start)
    weights = str(start.run.last_checkpoint())
    folder = tmp_path_factory.mktemp("reference")
    plan = planned(folder, data, nemo_model=weights, **MLM, **VALIDATED)
    (result,) = train(fork_server, plan)
    return weights, result, plan


@pytest.mark.parametrize("name", cases(LAYOUTS, set(LAYOUTS) - {"TP2+SP", "PP2+VPP2"}))
def test_loss_and_gradient_are_those_of_one_process(
    name: str, reference: tuple[str, dict[str, Any], Plan], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    weights, expected, alone = reference
    plan = planned(tmp_path, data, nemo_model=weights, **MLM, **VALIDATED, **LAYOUTS[name])
    ranks = train(fork_server, plan)
    assert ranks[0]["loss"] == pytest.approx(expected["loss"], rel=TOLERANCE)
    assert ranks[0]["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert validations(plan) == [pytest.approx(both, rel=1e-4) for both in validations(alone)]
    assert len(set(expected["loss"])) == 5


def test_killed_and_resumed_is_identical_to_never_stopped(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"max_steps": 8, "num_gpus": 2, "global_batch_size": 4, "checkpoint_every": 3}
    common |= {"val_check_interval": 4, "limit_val_batches": 1, "mlm_replacement": "span", **MLM}
    uninterrupted = planned(tmp_path, data, output_dir=str(tmp_path / "whole"), **common)
    whole = train(fork_server, uninterrupted)
    plan = planned(tmp_path, data, output_dir=str(tmp_path / "killed"), **common)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=5)
    rest = train(fork_server, prepared(plan))
    for before, after in zip(whole, rest, strict=True):
        assert after["step"] == [4, 5, 6, 7, 8]
        for key in ("loss", "grad_norm", "lr"):
            assert after[key] == before[key][3:], key
    assert validations(plan)[-2:] == validations(uninterrupted)


@pytest.mark.parametrize("replacement", ["bert", "span"])
def test_each_policy_trains_in_parts_as_in_one(
    replacement: str,
    reference: tuple[str, dict[str, Any], Plan],
    fork_server: ForkServer,
    data: str,
    tmp_path: Path,
) -> None:
    weights, always_masked, _ = reference
    values = {**MLM, "nemo_model": weights, "max_steps": 2, "mlm_replacement": replacement}
    one = train(fork_server, planned(tmp_path, data, output_dir=str(tmp_path / "one"), **values))
    values |= {"tensor_model_parallel_size": 2, "output_dir": str(tmp_path / "two")}
    two = train(fork_server, planned(tmp_path, data, **values))
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=TOLERANCE)
    assert one[0]["loss"][0] != always_masked["loss"][0]


def test_a_checkpoint_names_only_nemo_and_says_that_it_looks_both_ways(
    reference: tuple[str, dict[str, Any], Plan],
) -> None:
    _, _, plan = reference
    context = plan.run.last_checkpoint() / "context"  # type: ignore[operator]
    text = (context / "io.json").read_text() + (context / "model.yaml").read_text()
    assert "nemolaunch.nemo2" not in text
    assert "get_nv_embedding_layer_spec" in text
    (config,) = context.rglob("tokenizer_config.json")
    assert json.loads(config.read_text())["mask_token"] == MLM["mask_token"]


BERT = """\
base: bert_110m
num_layers: 2
hidden_size: 64
num_attention_heads: 4
num_query_groups: 4
kv_channels: 16
ffn_hidden_size: 128
seq_length: 64
hidden_dropout: 0.0
attention_dropout: 0.0
"""


def test_bert_runs_from_the_same_flags(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    model = tmp_path / "bert.yaml"
    model.write_text(BERT)
    values = {"model_name": str(model), "mask_token": MLM["mask_token"], "lr": 1e-3}
    start = planned(tmp_path, data, output_dir=str(tmp_path / "start"), max_steps=1, **values)
    assert start.job.get("objective") == "mlm"
    train(fork_server, start)
    values |= {"nemo_model": str(start.run.last_checkpoint()), "max_steps": 3, **VALIDATED}
    alone = planned(tmp_path, data, output_dir=str(tmp_path / "one"), **values)
    one = train(fork_server, alone)
    values |= {"tensor_model_parallel_size": 2, "output_dir": str(tmp_path / "two")}
    split = planned(tmp_path, data, **values)
    two = train(fork_server, split)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=TOLERANCE)
    assert validations(split) == [pytest.approx(both, rel=1e-4) for both in validations(alone)]


LEARNER = """\
base: llama3_8b
num_layers: 2
hidden_size: 128
num_attention_heads: 4
num_query_groups: 4
ffn_hidden_size: 256
seq_length: 64
init_method_std: 0.05
"""


@pytest.fixture(scope="module")
def bytes_of_english(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tokenizer of single bytes, and the English part of the sample corpus in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bytes")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|mask|>"]
    trainer = trainers.BpeTrainer(vocab_size=258, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", mask_token="<|mask|>")
    fast.save_pretrained(folder / "tokenizer")
    words = ["--hf-tokenizer", str(folder / "tokenizer"), "--data-prefix", "en", "--output-dir", str(folder)]
    words += ["--input-dir", "examples/corpus/en.jsonl"]
    root = Path(__file__).parents[2]
    subprocess.run(["bash", "preprocess_data.sh", *words], cwd=root, check=True, capture_output=True)
    return str(folder), str(folder / "tokenizer")


def test_it_learns_more_than_how_common_tokens_are(
    bytes_of_english: tuple[str, str], fork_server: ForkServer, tmp_path: Path
) -> None:
    folder, tokenizer = bytes_of_english
    model = tmp_path / "learner.yaml"
    model.write_text(LEARNER)
    plan = planned(
        tmp_path, folder, model_name=str(model), hf_model_id=tokenizer, objective="mlm", mlm_probability=0.15,
        max_steps=120, global_batch_size=64, micro_batch_size=32, num_gpus=2, lr=5e-3, warmup_steps=20,
        adam_beta2=0.98, val_check_interval=40, limit_val_batches=4,
    )  # fmt: skip
    train(fork_server, plan)
    text = (Path(__file__).parents[2] / "examples/corpus/en.jsonl").read_bytes()
    common = Counter(text).most_common(1)[0][1] / len(text)
    accuracies = [accuracy for _, accuracy in validations(plan)]
    assert accuracies[-1] > 1.5 * common, (accuracies, common)
    assert accuracies[-1] > accuracies[0]
