"""What a CPU cannot do is taken out of a recipe and said, or refused with every reason."""

from __future__ import annotations

from typing import Any

import pytest
from forkserver import ForkServer


def test_everything_a_cpu_lacks_is_taken_out_and_said(fork_server: ForkServer) -> None:
    (got,) = fork_server.run("nemo2.adapt_job:everything_dropped")
    assert got["accelerator"] == "cpu"
    assert got["left"] == []
    assert got["exp_avg_dtype"] == "torch.float32"
    said = "\n".join(got["sentences"])
    for thing in (
        "fp8",
        "overlap of tensor-parallel",
        "activation offload",
        "optimizer offload",
        "precision-aware",
        "cross entropy",
        "gradient accumulation",
        "deferred embedding",
        "CUDA graphs",
        "DeepEP",
        "masked softmax",
        "random generator",
    ):
        assert thing in said
    assert len(set(got["sentences"])) == len(got["sentences"])
    assert got["again"] == []


def test_a_recipe_a_cpu_can_train_loses_nothing(fork_server: ForkServer) -> None:
    assert fork_server.run("nemo2.adapt_job:plain_recipe") == [[]]


@pytest.mark.parametrize(
    ("kwargs", "reasons"),
    [
        ({"name": "t5_220m"}, ["T5Model has no CPU layers"]),
        ({"name": "llama3_8b", "packed": True, "fsdp": True}, ["packed sequences", "Megatron-FSDP"]),
    ],
)
def test_what_has_no_counterpart_is_refused(
    fork_server: ForkServer, kwargs: dict[str, Any], reasons: list[str]
) -> None:
    (got,) = fork_server.run("nemo2.adapt_job:refused", kwargs)
    for reason in reasons:
        assert reason in got["message"]
    assert got["accelerator"] == "gpu"
