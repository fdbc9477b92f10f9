"""Real NeMo recipes, shrunk, on the CPU: all layouts train alike, an interrupted run continues exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forkserver import ForkServer
from nemo2.small_models import write_tokenizer

# Layouts differ in the order of float32 sums only.
TOLERANCE = 2e-6

SEQUENCE_PARALLEL = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
PIPELINE = {"pipeline_model_parallel_size": 2}
EXPERTS = {"expert_model_parallel_size": 2}

LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor": {"strategy": {"tensor_model_parallel_size": 2}},
    "tensor and sequence": {"strategy": SEQUENCE_PARALLEL},
    "pipeline": {"strategy": PIPELINE},
    "virtual pipeline": {
        "strategy": {**PIPELINE, "virtual_pipeline_model_parallel_size": 2},
        "model": {"overlap_p2p_comm": True, "batch_p2p_comm": False},
    },
    "context": {"strategy": {"context_parallel_size": 2}},
    "data, distributed optimizer": {},
    "data": {"distributed_optimizer": False},
    "recomputed": {
        "strategy": SEQUENCE_PARALLEL,
        "model": {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 2},
    },
}


class Trainer:
    """Runs `train_job.train` in `nproc` ranks, each run in its own folder unless one is given."""

    def __init__(self, server: ForkServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.tokenizer = folder / "tokenizer"
        write_tokenizer(self.tokenizer)
        self.corpus = folder / "corpus"
        server.run("nemo2.train_job:write_corpus", {"prefix": str(self.corpus)})
        self.runs = 0

    def __call__(self, nproc: int = 2, folder: str | None = None, **kwargs: Any) -> dict[str, list[float]]:
        self.runs += 1
        folder = str(self.folder / (folder or f"run{self.runs}"))
        results = self.server.run(
            "nemo2.train_job:train",
            {"folder": folder, "tokenizer": str(self.tokenizer), "corpus": str(self.corpus), **kwargs},
            nproc=nproc,
        )
        assert all(result["reduced_train_loss"] == results[0]["reduced_train_loss"] for result in results)
        return dict(results[0])

    def checkpoints(self, folder: str) -> list[Path]:
        return sorted((self.folder / folder).rglob("*-last"))


@pytest.fixture(scope="module")
def train(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(fork_server, tmp_path_factory.mktemp("cpu-training"))


@pytest.fixture(scope="module")
def reference(train: Trainer) -> tuple[str, dict[str, list[float]]]:
    """A checkpoint of initial weights, and what one process makes of it."""
    train(nproc=1, folder="start", steps=1, save_at=1, precision="32")
    (start,) = train.checkpoints("start")
    return str(start), train(nproc=1, start=str(start), precision="32")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_trains_as_one_process_does(
    train: Trainer, reference: tuple[str, dict[str, list[float]]], layout: dict[str, Any]
) -> None:
    start, expected = reference
    got = train(start=start, precision="32", **layout)
    for quantity, values in expected.items():
        assert got[quantity] == pytest.approx(values, rel=TOLERANCE), quantity


def test_experts_on_two_ranks_train_as_on_one(train: Trainer) -> None:
    kwargs: dict[str, Any] = {
        "family": "mixtral_8x7b",
        "model": {"num_moe_experts": 4, "moe_router_topk": 2},
        "precision": "32",
    }
    alone = {"virtual_pipeline_model_parallel_size": None, "pipeline_model_parallel_size": 1}
    one = {**alone, "expert_model_parallel_size": 1}
    train(nproc=1, folder="experts", steps=1, save_at=1, strategy=one, **kwargs)
    (start,) = train.checkpoints("experts")
    expected = train(nproc=1, start=str(start), strategy=one, **kwargs)
    got = train(start=str(start), strategy={**alone, **EXPERTS}, **kwargs)
    assert got["reduced_train_loss"] == pytest.approx(expected["reduced_train_loss"], rel=TOLERANCE)


@pytest.mark.parametrize(
    ("nproc", "kwargs"),
    [
        (1, {}),
        (2, {"precision": "32"}),
        (2, {"strategy": SEQUENCE_PARALLEL}),
        (2, {"strategy": PIPELINE, "distributed_optimizer": False}),
    ],
    ids=["one process, bf16", "data, fp32", "tensor and sequence, bf16", "pipeline, bf16"],
)
def test_interrupted_run_continues_bit_for_bit(train: Trainer, nproc: int, kwargs: dict[str, Any]) -> None:
    name = f"interrupted{train.runs}"
    kwargs = {"nproc": nproc, "steps": 6, **kwargs}
    whole = train(**kwargs)
    first = train(folder=name, save_at=3, stop_after=3, **kwargs)
    rest = train(folder=name, save_at=3, **kwargs)
    assert len(first["lr"]) == len(rest["lr"]) == 3
    for quantity, values in whole.items():
        assert first[quantity] + rest[quantity] == values, quantity


def test_checkpoint_is_that_of_a_gpu_run(
    train: Trainer, reference: tuple[str, dict[str, list[float]]]
) -> None:
    """Nothing of the rehearsal is named in the context a GPU machine would load."""
    start, _ = reference
    context = Path(start) / "context"
    assert (context / "io.json").stat().st_size > 1000
    assert not [p for p in context.rglob("*") if p.is_file() and b"nemolaunch" in p.read_bytes()]
