"""Documents that share a sample: with the flags, none of them changes what the model computes for another."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned, train
from forkserver import ForkServer

from nemolaunch.checkpoint.convert.convert import convert

END = 1  # <|end_of_text|> of the sample tokenizer
EXACT = 2e-6  # fp32; products of matrices may sum in another order at another place
FLAGS: dict[str, Any] = {"reset_attention_mask": True, "reset_position_ids": True, "eod_mask_loss": True}
# samples of each size in turn have different numbers of documents
SHORT: dict[str, Any] = {
    "max_steps": 1,
    "warmup_steps": 0,
    "global_batch_size": 4,
    "limit_val_batches": 1,
    "val_check_interval": 1,
    "split": "80,20,0",
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six texts of 5 to 30 tokens, repeated in random order, as 16-bit ids without a manifest."""
    rng = random.Random(1)
    texts = [[*(rng.randrange(300, 8000) for _ in range(length)), END] for length in (5, 9, 14, 18, 23, 30)]
    chosen = [rng.choice(texts) for _ in range(600)]
    folder = tmp_path_factory.mktemp("documents")
    lengths = [len(text) for text in chosen]
    ids = [token for text in chosen for token in text]
    (folder / "text_document.bin").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    index = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(chosen), len(chosen) + 1)
    index += struct.pack(f"<{len(chosen)}i", *lengths)
    index += struct.pack(f"<{len(chosen)}q", *(2 * sum(lengths[:i]) for i in range(len(chosen))))
    (folder / "text_document.idx").write_bytes(
        index + struct.pack(f"<{len(chosen) + 1}q", *range(len(chosen) + 1))
    )
    return str(folder)


def trained(server: ForkServer, folder: Path, data: str, **values: Any) -> tuple[Any, dict[str, Any], Any]:
    """Return the plan, the losses, and what was recorded."""
    import torch

    plan = planned(folder, data, **{**SHORT, **values})
    job = {"plan_file": str(plan.run.plan), "record": str(folder / "record.pt")}
    losses = server.run("e2e.document_job:train", job, nproc=plan.world_size)[0]
    return plan, losses, torch.load(folder / "record.pt")


def whole_documents(rows: list[dict[str, Any]]) -> dict[tuple[int, ...], list[tuple[int, Any]]]:
    """Return the whole documents in samples: ids → place in the sample, and logits [n, vocabulary]."""
    found = defaultdict(list)
    for row in rows:
        for ids, logits in zip(row["ids"].tolist(), row["logits"], strict=True):
            ends = [i for i, token in enumerate(ids) if token == END]
            for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False):
                found[tuple(ids[start : end + 1])].append((start, logits[start : end + 1]))
    return found


def differences(rows: list[dict[str, Any]]) -> list[float]:
    """Return how much logits of equal documents differ that begin at different places, 1 being their size."""
    found = []
    for copies in whole_documents(rows).values():
        first, expected = copies[0]
        others = [logits for start, logits in copies if start != first]
        found += [((logits - expected).abs().max() / expected.abs().max()).item() for logits in others]
    return found


@pytest.fixture(scope="module")
def separate(
    fork_server: ForkServer, documents: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, dict[str, Any], Any]:
    return trained(fork_server, tmp_path_factory.mktemp("separate"), documents, **FLAGS)


def test_a_document_is_computed_as_if_it_stood_alone(separate: tuple[Any, dict[str, Any], Any]) -> None:
    _, _, seen = separate
    found = differences(seen["train"]) + differences(seen["validation"])
    assert len(found) >= 8
    assert max(found) <= EXACT


def test_without_the_flags_it_depends_on_what_precedes_it(
    fork_server: ForkServer, documents: str, tmp_path: Path
) -> None:
    _, _, seen = trained(fork_server, tmp_path, documents)
    found = differences(seen["train"])
    assert len(found) > 3
    assert min(found) > 1000 * EXACT


@pytest.fixture(scope="module")
def alone(separate: tuple[Any, dict[str, Any], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trained model in transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("hf") / "model"
    convert(separate[0].run.last_checkpoint(), folder, "hf")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_logits_are_those_of_transformers_for_each_document_alone(
    separate: tuple[Any, dict[str, Any], Any], alone: Any
) -> None:
    import torch

    found = whole_documents(separate[2]["validation"])
    assert len(found) >= 4
    for ids, copies in found.items():
        with torch.no_grad():
            expected = alone(torch.tensor([ids])).logits[0]
        for _, logits in copies:
            assert (logits[:, : expected.shape[-1]] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_parallel_ranks_have_the_loss_of_transformers(
    separate: tuple[Any, dict[str, Any], Any],
    alone: Any,
    fork_server: ForkServer,
    documents: str,
    tmp_path: Path,
) -> None:
    """Two pipeline stages of two tensor parallel ranks; the vocabulary's padding has weights in NeMo only."""
    import torch
    from torch.nn.functional import cross_entropy

    plan, _, seen = separate
    values: dict[str, Any] = {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "pipeline_model_parallel_size": 2,
    }
    values |= {**SHORT, "limit_val_batches": 0, "nemo_model": str(plan.run.last_checkpoint()), **FLAGS}
    start = planned(tmp_path, documents, **values)
    ranks = train(fork_server, start)
    total = count = 0.0
    for row in seen["train"]:  # the same samples
        ids, labels = row["ids"][0], row["labels"][0]
        bounds = [0, *((ids[:-1] == END).nonzero().flatten() + 1).tolist(), len(ids)]
        parts = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        with torch.no_grad():
            logits = torch.cat([alone(ids[part][None]).logits[0] for part in parts])
        losses = cross_entropy(logits, labels, reduction="none")
        total, count = total + losses[ids != END].sum().item(), count + int((ids != END).sum())
    assert ranks[-1]["loss"] == [pytest.approx(total / count, rel=1e-5)]


def test_the_loss_is_the_mean_over_all_but_the_ends(separate: tuple[Any, dict[str, Any], Any]) -> None:
    from torch.nn.functional import cross_entropy

    _, losses, seen = separate
    for kind, rows in seen.items():
        counted = [row["ids"] != END for row in rows]
        assert len({int(part.sum()) for part in counted}) > 1, (
            "each micro batch has its own number of documents"
        )
        total = sum(
            cross_entropy(row["logits"][mask], row["labels"][mask], reduction="sum").item()
            for row, mask in zip(rows, counted, strict=True)
        )
        assert losses[kind] == [pytest.approx(total / sum(int(mask.sum()) for mask in counted), rel=1e-5)]


def test_a_checkpoint_names_only_nemo(separate: tuple[Any, dict[str, Any], Any]) -> None:
    context = separate[0].run.last_checkpoint() / "context"
    text = (context / "io.json").read_text() + (context / "model.yaml").read_text()
    assert "nemolaunch." not in text
    assert "calculate_per_token_loss: true" in text


STARCODER = """\
base: starcoder_15b
num_layers: 2
hidden_size: 64
num_attention_heads: 4
num_query_groups: 1
kv_channels: 16
ffn_hidden_size: 128
seq_length: 64
hidden_dropout: 0.0
attention_dropout: 0.0
"""


def test_learned_positions_restart(fork_server: ForkServer, documents: str, tmp_path: Path) -> None:
    """Otherwise a document would be computed differently at each place in a sample."""
    model = tmp_path / "starcoder.yaml"
    model.write_text(STARCODER)
    _, _, seen = trained(fork_server, tmp_path, documents, model_name=str(model), **FLAGS)
    found = differences(seen["train"]) + differences(seen["validation"])
    assert len(found) >= 8
    assert max(found) <= EXACT


def test_documents_of_a_validation_set(fork_server: ForkServer, documents: str, tmp_path: Path) -> None:
    shutil.copytree(documents, tmp_path / "held", ignore=shutil.ignore_patterns("cache"))
    values = {"validation_data": [f"held={tmp_path / 'held'}"], "split": "1,0,0"}
    _, _, seen = trained(fork_server, tmp_path, documents, **values, **FLAGS)
    found = differences(seen["validation"])
    assert len(found) >= 3
    assert max(found) <= EXACT
    assert all(((row["ids"] != END) == row["loss_mask"]).all() for row in seen["validation"])


def test_documents_of_a_stream(fork_server: ForkServer, tmp_path: Path) -> None:
    rng = random.Random(2)
    words = [chr(letter) * length for letter in range(97, 123) for length in (1, 2, 3)]
    texts = [" ".join(rng.choices(words, k=length)) for length in (2, 4, 6, 9, 12, 15)]
    lines = [json.dumps({"text": rng.choice(texts)}) for _ in range(800)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    _, _, seen = trained(
        fork_server, tmp_path, str(tmp_path / "texts.jsonl"), data_mode="stream", num_workers=0, **FLAGS
    )
    found = differences(seen["train"])
    assert len(found) >= 8
    assert max(found) <= EXACT
    assert all(((row["ids"] != END) == row["loss_mask"]).all() for row in seen["train"])


def test_an_end_that_is_also_padding_is_not_trained(
    fork_server: ForkServer, documents: str, tmp_path: Path
) -> None:
    """What the finding `end-is-padding` says of Megatron's dataset."""
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree("examples/tokenizer", tokenizer)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings["pad_token"] = settings["eos_token"]
    (tokenizer / "special_tokens_map.json").unlink()  # which would come before it
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    plan, _, seen = trained(fork_server, tmp_path, documents, hf_model_id=str(tokenizer))
    assert "end-is-padding" in {finding.code for finding in plan.findings}
    for row in seen["train"]:
        assert END not in row["ids"]
        assert (row["ids"] == 0).any()
        assert (row["loss_mask"][row["labels"] == 0] == 0).all()
