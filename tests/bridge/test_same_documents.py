"""Documents that share a sample are kept apart by Megatron-Bridge as by NeMo 2.

Tests of NeMo 2 show that a document is computed as if it stood alone (`e2e/test_documents.py`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import e2e.test_documents
import pytest
from bridge.test_same_training import BRIDGE, job, train_bridge
from cases import cases
from e2e.jobs import planned
from e2e.jobs import train as train_nemo
from e2e.test_documents import EXACT, FLAGS, differences
from forkserver import ForkServer

documents = e2e.test_documents.documents
SHORT: dict[str, Any] = {"max_steps": 3, "global_batch_size": 8}
CASES: dict[str, dict[str, Any]] = {
    # the middle stages have no tokens of their own
    "apart, PP2, interleaved": {
        **FLAGS,
        "num_gpus": 2,
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "masked loss only, DP2": {"eod_mask_loss": True, "micro_batch_size": 2, "num_gpus": 2},
    "apart, TP2 SP": {**FLAGS, "num_gpus": 2, "tensor_model_parallel_size": 2, "sequence_parallel": True},
}
LONG = {"apart, TP2 SP"}


@pytest.mark.parametrize("name", cases(CASES, LONG))
def test_same_losses(
    name: str, bridge_server: ForkServer, fork_server: ForkServer, documents: str, tmp_path: Path
) -> None:
    values = {**SHORT, **CASES[name]}
    nemo = train_nemo(fork_server, job(tmp_path / "nemo2", documents, **values))
    bridge = train_bridge(bridge_server, job(tmp_path / "bridge", documents, **BRIDGE, **values))
    assert bridge[-1]["loss"] == nemo[0]["loss"]
    assert bridge[0]["grad_norm"] == nemo[0]["grad_norm"]


# NeMo 2 builds it from layers that cannot keep documents apart
GPT3 = """\
base: gpt3_175b
num_layers: 2
hidden_size: 64
num_attention_heads: 4
ffn_hidden_size: 256
seq_length: 64
hidden_dropout: 0.0
attention_dropout: 0.0
"""


def test_learned_positions_restart(bridge_server: ForkServer, documents: str, tmp_path: Path) -> None:
    """Equal documents have equal logits wherever they begin, also in a validation set."""
    import torch

    (tmp_path / "gpt3.yaml").write_text(GPT3)
    shutil.copytree(documents, tmp_path / "held", ignore=shutil.ignore_patterns("cache"))
    values: dict[str, Any] = {
        "model_name": str(tmp_path / "gpt3.yaml"),
        "validation_data": [f"held={tmp_path / 'held'}"],
    }
    values |= {"max_steps": 1, "global_batch_size": 4, "limit_val_batches": 1, "val_check_interval": 1}
    plan = planned(tmp_path, documents, **BRIDGE, **FLAGS, **values, split="1,0,0", warmup_steps=0)
    record = tmp_path / "record.pt"
    bridge_server.run("bridge.document_job:train", {"plan_file": str(plan.run.plan), "record": str(record)})
    seen = torch.load(record)
    for rows in seen.values():
        found = differences(rows)
        assert len(found) >= 3
        assert max(found) <= EXACT
