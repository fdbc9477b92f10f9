"""Finding one run among many: tags and notes, sorted and filtered lists, results side by side and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.main import main
from nemolaunch.run.folder import RunDir
from nemolaunch.run.labels import labels_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs: the second has the lowest validation loss, the third none and the lowest loss."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, loss, validation, lr in (
        ("first", 3.0, 3.5, 1e-3),
        ("second", 2.9, 3.25, 2e-3),
        ("third", 2.5, None, 2e-3),
    ):
        rows = [start(), step(1, 9.0), step(2, loss)]
        if validation is not None:
            rows.append({"step": 2, "time": 1003.0, "val_loss": validation})
        write_run(folder / name, rows, lr=lr, experiment=name)
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main([str(word) for word in words]) == code
    out = capsys.readouterr()
    return out.out + out.err


def listed(capsys: pytest.CaptureFixture[str], runs: Path, *words: str) -> list[str]:
    out = said(capsys, "status", "--runs-dir", runs, "--json", *words)
    return [Path(json.loads(line)["folder"]).name for line in out.splitlines()]


def test_runs_are_listed_by_what_is_asked_for(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, runs, "--sort", "val-loss") == ["second", "first", "third"]
    assert listed(capsys, runs, "--sort", "loss") == ["third", "second", "first"]
    assert listed(capsys, runs, "--sort", "name", "--filter", "IR") == ["first", "third"]
    assert listed(capsys, runs, "--filter", "nano", "--filter", "sec") == ["second"]
    table = said(capsys, "status", "--runs-dir", runs, "--sort", "val-loss").splitlines()
    assert table[0].split("  ")[0] == "RUN"
    column = table[0].index("VAL LOSS")
    assert [line[column : column + 5].strip() for line in table[1:]] == ["3.250", "3.500", ""]
    assert "TAGS" not in table[0]
    assert (
        said(capsys, "status", "--runs-dir", runs, "--filter", "fourth") == f"no runs in {runs} with fourth\n"
    )


def test_tags_and_notes_stay_with_the_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "tag", runs / "first", "baseline", "--note", "before the fix", "paper")
    said(capsys, "tag", runs / "second", "paper")
    assert listed(capsys, runs, "--filter", "paper", "--sort", "name") == ["first", "second"]
    said(capsys, "tag", runs / "first", "--remove", "paper")
    assert listed(capsys, runs, "--filter", "paper") == ["second"]
    shown = said(capsys, "status", runs / "first", code=1)
    assert "tags         baseline\n" in shown
    assert "note         before the fix\n" in shown
    (runs / "first").rename(runs / "renamed")
    assert labels_of(RunDir(runs / "renamed")).tags == ("baseline",)
    page = Path(said(capsys, "report", runs / "renamed").strip()).read_text()
    assert '<span class="tag">baseline</span>' in page
    assert "before the fix" in page


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["two words"], "without spaces and commas"),
        (["a,b"], "without spaces and commas"),
        ([""], "1 to 64 characters"),
        (["--remove", "other"], "the run has no such tag; it has none"),
    ],
)
def test_a_tag_that_cannot_be_is_refused(
    words: list[str], why: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in said(capsys, "tag", runs / "first", *words, code=2)
    assert not RunDir(runs / "first").labels.exists()


def test_damaged_labels_do_not_hide_a_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("", "[]", '{"tags": 3, "notes": []}', '{"tags": [], "notes": [{}]}'):
        RunDir(runs / "first").labels.write_text(content)
        assert len(listed(capsys, runs)) == 3


def test_a_comparison_shows_results_beside_settings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "diff", runs / "first", runs / "second", code=1)
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["lr"] == ["0.001", "0.002"]
    assert rows["val_loss"] == ["3.5", "3.25"]
    assert shown.index("\nlr ") < shown.index("\nresults\n") < shown.index("\nval_loss ")
    found: list[dict[str, Any]] = json.loads(
        said(capsys, "diff", runs / "second", runs / "third", "--json", code=1)
    )
    values = {row["name"]: (row["a"], row["b"]) for row in found}
    assert values["result.val_loss"] == (3.25, None)
    assert values["result.loss"] == (2.9, 2.5)
    assert "lr" not in values


def test_the_report_as_json(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = said(capsys, "report", runs / "first", runs / "third", "--json")
    first, third = map(json.loads, out.splitlines())
    assert first["results"] == {
        "steps": 2, "loss": 3.0, "val_loss": 3.5, "tokens": 8192.0, "tokens_per_s": 8192.0
    }  # fmt: skip
    assert "val_loss" not in third["results"]
    assert (first["model"], first["max_steps"], first["values"]["lr"]) == ("nano", 100, 1e-3)
    assert not (runs / "first" / "report.html").exists()
    said(capsys, "report", runs / "first", "--json", "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size
