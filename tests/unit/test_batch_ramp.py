"""The batch size of each step: Megatron's rule, step by step, and what the plan makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from check_jobs import findings, write_data

from nemolaunch.arithmetic.ramp import BatchSizes, Ramp, ramp_of
from nemolaunch.cli.views.schedule import schedule_lines
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan


@pytest.mark.parametrize(
    ("full", "ramp"),
    [
        (8, "2:2:12"),
        (12, "3:3:1"),
        (1024, "16:16:20000"),
        (31, "1:3:997"),
        (24, "8:16:24"),
        (21, "20:1:3000"),
    ],
)
def test_sizes_and_samples_are_those_of_megatrons_calculator(full: int, ramp: str) -> None:
    from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

    sizes, (start, increment, samples) = BatchSizes(full=full, ramp=ramp_of(ramp)), map(int, ramp.split(":"))
    calculator = RampupBatchsizeNumMicroBatchesCalculator(full, 1, 1, False, 1, start, increment, samples)
    consumed = 0
    for step in range(sizes.ramp_steps + 5):
        calculator.update(consumed, False)
        assert sizes.size(step) == calculator.get_current_global_batch_size()
        assert sizes.samples(step) == consumed
        assert sizes.steps_within(consumed) == sizes.steps_for(consumed) == step
        assert sizes.steps_within(consumed + 1) == step or sizes.size(step) == 1
        assert sizes.steps_for(consumed + 1) == step + 1
        consumed += sizes.size(step)
    assert sizes.size(sizes.ramp_steps) == full > sizes.size(sizes.ramp_steps - 1)


def test_a_training_goes_on_from_the_samples_it_has_read() -> None:
    """After 10 steps and 30 samples: of 40 samples, each fourth of 10 has a batch of 2 more."""
    sizes = BatchSizes(full=10, ramp=Ramp(start=2, increment=2, samples=40), done_steps=10, done_samples=30)
    assert [sizes.size(step) for step in (10, 11, 12)] == [8, 8, 10]
    assert [sizes.samples(steps) for steps in (0, 10, 11, 12, 13)] == [0, 30, 38, 46, 56]


def planned(folder: Path, **values: Any) -> Plan:
    """20 documents of 1,000 tokens: 1,999 sequences of 10 tokens."""
    data = write_data(folder, num_tokens=20_000, num_documents=20)
    common: dict[str, Any] = {
        "model_name": "llama3_8b", "hf_model_id": str(Path(__file__).parents[2] / "examples" / "tokenizer"),
        "dataset_dir": [data], "output_dir": str(folder / "run"), "seq_length": 10, "split": "1,0,0",
        "global_batch_size": 8, "rampup_batch_size": "2:2:12", "limit_val_batches": 0, "num_gpus": 1,
    }  # fmt: skip
    return make_plan(Job().with_values(**{**common, **values}))


def test_lengths_in_tokens_and_epochs_count_the_ramp(tmp_path: Path) -> None:
    """Steps of 2, 2, 4, 6, then 8: 14 samples in the first four steps instead of 32."""
    epoch = planned(tmp_path)
    assert epoch.epoch_samples == 1999
    assert epoch.max_steps == 4 + (1999 - 14) // 8
    assert planned(tmp_path, max_tokens=220).max_steps == 5
    assert planned(tmp_path, max_tokens=221).max_steps == 6
    found = planned(tmp_path, max_steps=5)
    assert found.estimate is not None
    assert found.estimate.time.tokens == 220
    assert found.estimate.time.total_s == pytest.approx(220 / found.estimate.time.tokens_per_s)
    assert "from 2 to 8 sequences" in schedule_lines(found)[-1]
    assert "after 4 steps and 14 sequences" in schedule_lines(found)[-1]
    assert Plan.load(found.save(tmp_path / "plan.json")).batch_sizes == found.batch_sizes


@pytest.mark.parametrize(
    ("values", "code", "fixed"),
    [
        ({"rampup_batch_size": "64:48:1000"}, "ramp-increments", "64:32:1000"),
        ({"rampup_batch_size": "2048:64:1000"}, "ramp-increments", "2040:8:1000"),
        ({"rampup_batch_size": "100:4:1000"}, "ramp-by-data-parallel", "96:8:1000"),
        ({"rampup_batch_size": "4,4,8"}, "ramp-form", None),
        ({"rampup_batch_size": "4:0:8"}, "ramp-form", None),
    ],
)
def test_a_ramp_that_cannot_be_trained_is_refused_with_one_that_can(
    values: dict[str, Any], code: str, fixed: str | None
) -> None:
    (finding,) = [f for f in findings(**values) if f.code.startswith("ramp-")]
    assert finding.code == code
    assert finding.fixes[0].changes == {"rampup_batch_size": fixed}
    assert not [f for f in findings(rampup_batch_size=fixed, max_steps=10_000) if f.code.startswith("ramp-")]


def test_a_stream_reads_each_batch_evenly(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a b c"}\n')
    stream: dict[str, Any] = {
        "data_mode": "stream",
        "dataset_dir": [str(texts)],
        "max_steps": 50,
        "num_gpus": 2,
    }
    plan = planned(tmp_path, **stream)
    assert plan.job.stream.stream_readers == 2
    wrong = planned(tmp_path, **stream, stream_readers=4)
    (finding,) = [f for f in wrong.findings if f.code == "stream-readers"]
    assert finding.fixes[0].changes == {"stream_readers": 2}
