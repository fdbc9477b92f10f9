"""The checks against NeMo's and Megatron's own verdicts, on random jobs over all models and flags.

`benchmarks/checks/differential.py` does the same for 10,000 jobs.
"""

from __future__ import annotations

from pathlib import Path

from forkserver import ForkServer
from truth.rehearsal import plan_of
from truth.silent import SILENT

from nemolaunch.check import RULES
from nemolaunch.launching.prepare import prepare


def test_the_checks_agree_with_nemo(fork_server: ForkServer) -> None:
    (result,) = fork_server.run("truth.differential:compare", {"seed": 0, "count": 400}, timeout=300)
    assert result["disagreements"] == []
    assert result["accepted"] > 100
    assert result["refused"] > 100
    assert len(result["codes"]) > 30


def test_jobs_that_only_the_checks_refuse_have_known_codes() -> None:
    assert SILENT.keys() <= RULES.keys()


def test_data_of_a_few_documents_can_be_trained_on(fork_server: ForkServer, tmp_path: Path) -> None:
    """Megatron would never finish building a validation split that has no document."""
    plan = plan_of(
        tmp_path, {"num_gpus": 1, "global_batch_size": 8, "seq_length": 64, "precision": "fp32"}, "dense"
    )
    assert plan.findings == ()
    prepare(plan)
    (result,) = fork_server.run("e2e.train_plan:train", {"plan_file": str(plan.run.plan)})
    assert result["step"] == [1]
