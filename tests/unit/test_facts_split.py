"""Shares of the data without a document are left out: Megatron would look for their first token for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.facts import look
from nemolaunch.facts.data_files import split_bounds
from nemolaunch.job import Job
from nemolaunch.planning import make_plan


def job(data: str, **values: object) -> Job:
    return Job().with_values(
        model_name="nano",
        dataset_dir=[data],
        hf_model_id=TOKENIZER,
        seq_length=64,
        global_batch_size=8,
        **values,
    )


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (1, "998,0,0"),
        (100, "998,0,0"),
        (300, "998,0,0"),  # without the test share, the validation share is empty as well
        (500, "998,1,0"),
        (1000, "998,1,1"),
    ],
)
def test_empty_shares_are_left_out(tmp_path: Path, documents: int, expected: str) -> None:
    data = write_data(tmp_path, num_tokens=200_000, num_documents=documents)
    facts = look(job(data))
    assert facts.split == expected
    shares = [float(share) for share in expected.split(",")]
    assert all(
        (tokens > 0) == (share > 0) for tokens, share in zip(facts.data[0].split_tokens, shares, strict=True)
    )


def test_the_plan_says_so_and_validates_on_nothing(tmp_path: Path) -> None:
    plan = make_plan(job(write_data(tmp_path)))
    assert plan.job.data.split == "998,0,0"
    assert plan.origins["split"] == "with 998,1,1 a share has no document"
    assert plan.job.logging.limit_val_batches == 0


def test_a_malformed_split_is_left_to_the_checks(tmp_path: Path) -> None:
    assert look(job(write_data(tmp_path), split="a,b")).split == "a,b"


@pytest.mark.parametrize("split", ["1e400", "1,nan,1", "-1,2,0", "a,b", "0,0,0", ""])
def test_a_split_that_is_none_counts_as_all_training_or_nothing(split: str) -> None:
    (first, end), *_ = split_bounds(split, 100)
    assert first == 0
    assert end in (0, 100)
