"""Searches: what they draw from, and a study of the real Optuna that goes on after it was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch.cli.main import main
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.sweeps.points import parsed_axes
from nemolaunch.sweeps.search import JOURNAL, Study
from nemolaunch.sweeps.space import Choices, Range, ends, parsed_space

SPACE = parsed_space(["lr=1e-4..1e-2:log", "global-batch-size=8..64", "optimizer=adam,sgd"])


def test_ranges_and_lists_are_read_as_the_flags_read_them() -> None:
    assert {
        "lr": Range(1e-4, 1e-2, log=True),
        "global_batch_size": Range(8, 64),
        "optimizer": Choices(("adam", "sgd")),
    } == SPACE
    assert parsed_space(["max-tokens=1M..4M"])["max_tokens"] == Range(1_000_000, 4_000_000)
    assert [point.changes for point in ends(SPACE)] == [
        {"lr": 1e-4, "global_batch_size": 8, "optimizer": "adam"},
        {"lr": 1e-2, "global_batch_size": 64, "optimizer": "sgd"},
    ]
    rows = ends(parsed_space(["lr=1e-4..1e-2", "seed=1,2,3"]))
    assert [(row.changes["lr"], row.changes["seed"]) for row in rows] == [(1e-4, 1), (1e-2, 2), (1e-2, 3)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["lr=1e-2..1e-4"], "0.01 is not below 0.0001"),
        (["weight-decay=0..0.3:log"], "a logarithmic range begins above 0"),
        (["lr=1e-4..1e-2:lin"], "a range ends in :log or in nothing, not in :lin"),
        (["optimizer=adam..sgd"], "--optimizer takes no numbers"),
        (["seed=1.5..3"], "--seed takes a whole number, not '1.5'"),
        (["lr=1e-3,0.001"], "a value is given twice"),
        (["lr=1e-4..1e-3", "lr=1e-3"], "--lr is given twice"),
        (["experiment=a,b"], "--experiment is the same for all runs"),
        ([], "--sampler needs something to search"),
    ],
)
def test_wrong_spaces_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed_space(words)
    assert why in str(caught.value)


def test_a_range_without_a_sampler_names_it() -> None:
    with pytest.raises(UsageError, match="a range is for a search, with --sampler optuna:tpe"):
        parsed_axes(["lr=1e-4..1e-2:log"])


def result(changes: dict[str, float]) -> float:
    return abs(changes["lr"] - 1e-3) + changes["global_batch_size"] / 1e6


def test_an_interrupted_search_goes_on_with_the_trial_that_was_training(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, "optuna:tpe", seed=1)
    first = study.next()
    assert first.name == "trial-0"
    study.tell(first, result(first.changes))
    second = study.next()

    again = Study(tmp_path, SPACE, "optuna:tpe", seed=1)
    assert again.succeeded() == [first]
    assert again.interrupted() == [second]
    again.tell(second, None)  # it failed
    third = again.next()
    assert third.name == "trial-2"
    assert third.changes["lr"] not in (first.changes["lr"], second.changes["lr"])

    last = Study(tmp_path, SPACE, "optuna:tpe", seed=1)
    assert (last.succeeded(), last.interrupted(), last.num_trials) == ([first], [third], 3)


def test_it_draws_what_the_space_allows_and_finds_better_than_by_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("optuna:tpe", "optuna:random"):
        study = Study(tmp_path / sampler.replace(":", "-"), SPACE, sampler, seed=1)
        drawn = []
        for _ in range(60):
            trial = study.next()
            drawn.append(trial.changes)
            study.tell(trial, result(trial.changes))
        assert all(1e-4 <= row["lr"] <= 1e-2 and 8 <= row["global_batch_size"] <= 64 for row in drawn)
        assert {row["optimizer"] for row in drawn} == {"adam", "sgd"}
        assert all(isinstance(row["global_batch_size"], int) for row in drawn)
        best[sampler] = min(map(result, drawn))
    assert best["optuna:tpe"] < best["optuna:random"]


def test_other_values_of_a_list_and_a_damaged_journal_are_refused(tmp_path: Path) -> None:
    Study(tmp_path, SPACE, "optuna:random", seed=1).next()
    other = Study(tmp_path, {**SPACE, "optimizer": Choices(("adam", "muon"))}, "optuna:random", seed=1)
    with pytest.raises(UsageError, match="the search has begun with other values"):
        other.next()
    (tmp_path / JOURNAL).write_text("nothing\n")
    with pytest.raises(NemolaunchError, match="is not the journal of a study"):
        Study(tmp_path, SPACE, "optuna:random", seed=1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sampler", "tpe", "--trials", "2"], "there are optuna:tpe, optuna:random, optuna:qmc"),
        (["--sampler", "optuna:tpe"], "--sampler needs --trials N"),
        (["--sampler", "optuna:tpe", "--trials", "0"], "--trials 0: between 1 and 1,000"),
        (["--trials", "2"], "--trials is for a search"),
        (["--sampler", "optuna:tpe", "--trials", "2", "--retry-failed"], "raise --trials instead"),
        (["--sampler", "optuna:tpe", "--trials", "2", "--executor", "slurm"], "is for runs on this machine"),
    ],
)
def test_mistakes_of_the_command_are_explained(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["-M", "nano", "--dataset-dir", str(tmp_path), "--sweep", "lr=1e-4,1e-3", "--dry-run"]
    assert main(["sweep", *flags, *words]) == 2
    assert why in capsys.readouterr().err
