"""The report: a single self-contained file in which nothing from a run can inject HTML."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import report, status
from nemolaunch.system import processes

HOSTILE = "</script><script>alert(1)</script>"
HOSTILE_NAME = "<img src=x onerror='alert(1)'> & \"co\""


class Page(HTMLParser):
    """The text, addresses and scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.words))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def drawn(*words: str | Path) -> Page:
    """Run the command and return its page."""
    output = Path(words[0]).parent / "page.html"
    assert report.main([*map(str, words), "-o", str(output)]) == 0
    return Page(output)


def test_headline_figures_and_curves(tmp_path: Path) -> None:
    rows = [start(), *(step(n, 9.0 - n / 20) for n in range(1, 101))]
    rows += [{"step": 100, "time": 1101.0, "val_loss": 4.25, "validation_s": 1.0}]
    rows += [{"event": "end", "step": 100, "time": 1101.0}]
    page = drawn(write_run(tmp_path / "run", rows))
    assert "8.950 → 4.000" in page.text
    assert "4.250" in page.text
    assert "perplexity 70.1" in page.text
    assert "finished" in page.text
    assert "3 GiB" in page.text
    (run,) = page.data["runs"]
    assert run["series"]["loss"][1][-1] == 4.0
    assert run["series"]["val_loss"] == [[100], [4.25]]
    for chart in page.data["charts"]:
        assert f'id="chart-{chart["id"]}"' in page.source


def test_needs_no_network(tmp_path: Path) -> None:
    page = drawn(write_run(tmp_path / "run", [start(), step(1, 9.0)]))
    assert [address for address in page.addresses if not address.startswith("#")] == ["data:,"]
    assert "default-src 'none'" in page.source
    assert not re.search(r"@import|url\(\s*['\"]?http", page.source)


def test_text_from_a_run_is_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [start(), step(1, 9.0)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"event": "loss spike", "step": 1, "time": 1002.0, "text": HOSTILE}) + "\n")
    sample = {"prompt": HOSTILE, "text": HOSTILE}
    row = {"step": 1, "checkpoint": "c", "samples": [sample], "eval_perplexity": 12.5}
    (folder / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    page = drawn(folder)
    assert len(page.scripts) == 3
    assert HOSTILE in page.text
    assert page.data["runs"][0]["marks"][0]["text"] == HOSTILE
    assert "12.5" in page.text


def test_every_section_escapes_what_it_shows(tmp_path: Path) -> None:
    rows = [{**start(), "environment": {HOSTILE: HOSTILE}}, *(step(n, 9.0) for n in range(1, 8))]
    rows += [{"event": "checkpoint", "step": 7, "time": 1008.0, "seconds": 2.0}]
    folder = write_run(tmp_path / HOSTILE_NAME, rows)
    plan = json.loads((folder / "plan.json").read_text())
    plan["blend"] = [[0.5, HOSTILE], [0.5, "other"]]
    plan["findings"], plan["left_out"], plan["origins"]["lr"] = [HOSTILE], [HOSTILE], HOSTILE
    plan["model"] = HOSTILE
    (folder / "plan.json").write_text(json.dumps(plan))
    evaluation = {
        "step": 7,
        "tasks": {HOSTILE: {"acc": 0.5}},
        "samples": [{"prompt": HOSTILE, "text": HOSTILE}],
    }
    evaluation["ppl_of"] = {"data": HOSTILE, "tokens": 5000, "context_length": 64, "stride": 32}
    (folder / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    (folder / "traces").mkdir()
    (folder / "traces" / f"{HOSTILE_NAME}.json").write_text("{}")
    (folder / "checkpoints" / f"{HOSTILE_NAME}--step=6-consumed_samples=112.0" / "weights").mkdir(
        parents=True
    )
    other = write_run(tmp_path / "other", [start(), step(1, 9.0)], lr=2e-3)
    (alone, both) = drawn(folder), drawn(folder, other)
    for page in (alone, both):
        assert len(page.scripts) == 3
        assert "<img" not in page.source
        assert HOSTILE_NAME in page.text
        assert page.data["runs"][0]["name"] == HOSTILE_NAME
        sections = page.source.split('<section class="part" id="')[2:]
        shown = {section.split('"')[0]: section for section in sections}
        assert list(shown) == [
            "checkpoints", "evaluation", "samples", "time", "traces", "data", "plan", "findings", "environment",
        ]  # fmt: skip
        for name in ("evaluation", "samples", "data", "plan", "findings", "environment"):
            assert "&lt;/script&gt;&lt;script&gt;alert(1)" in shown[name], name
        for name in ("checkpoints", "traces"):
            assert "&lt;img src=x" in shown[name], name


def test_a_restart_is_marked_and_repeated_steps_count_once(tmp_path: Path) -> None:
    rows = [start(), *(step(n, 9.0) for n in range(1, 8)), start(5), *(step(n, 8.0) for n in range(6, 11))]
    page = drawn(write_run(tmp_path / "run", rows))
    (run,) = page.data["runs"]
    assert run["series"]["loss"] == [list(range(1, 11)), [9.0] * 5 + [8.0] * 5]
    assert [(mark["step"], mark["kind"]) for mark in run["marks"]] == [(5, "restart")]
    assert "restarted from step 5, repeating steps 6 to 7" in page.text


def test_a_failure_is_shown_and_marked_where_it_happened(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [start(), *(step(n, 9.0) for n in range(1, 8))])
    (folder / "logs").mkdir()
    record = {"rank": 3, "time": 1009.0, "type": "RuntimeError", "message": "found NaN in local grad norm"}
    (folder / "logs" / "rank3.error.json").write_text(json.dumps(record))
    page = drawn(folder)
    (mark,) = page.data["runs"][0]["marks"]
    assert (mark["step"], mark["kind"]) == (7, "failed")
    assert mark["text"] == "rank 3: RuntimeError: found NaN in local grad norm"


def test_spikes_of_a_long_run_stay_visible_and_the_page_small(tmp_path: Path) -> None:
    rows = [start(), *(step(n, 50.0 if n == 31_337 else 2.0) for n in range(1, 60_001))]
    page = drawn(write_run(tmp_path / "run", rows))
    steps, values = page.data["runs"][0]["series"]["loss"]
    assert len(steps) < 2100
    assert values[steps.index(31_337)] == 50.0
    assert (steps[0], steps[-1]) == (1, 60_000)


def test_several_runs_with_the_flags_that_differ(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [start(), step(1, 9.0)], lr=1e-3)
    two = write_run(tmp_path / "two", [start(), step(1, 8.0)], lr=2e-3)
    page = drawn(one, two)
    assert [run["name"] for run in page.data["runs"]] == ["one", "two"]
    table = page.source.split("Flags that differ")[1].split("</table>")[0]
    assert re.findall(r"<code>(--[\w-]+)</code>", table) == ["--lr", "--min-lr"]
    assert "0.001" in table
    assert "0.002" in table


def test_values_that_are_not_finite_are_omitted_from_the_curve(tmp_path: Path) -> None:
    rows = [start(), step(1, 9.0), {**step(2, 0.0), "loss": "nan"}, step(3, 8.0)]
    page = drawn(write_run(tmp_path / "run", rows))
    assert page.data["runs"][0]["series"]["loss"] == [[1, 3], [9.0, 8.0]]


def test_a_loss_that_ends_not_finite_is_not_shown_as_its_last_value(tmp_path: Path) -> None:
    rows = [start(), step(1, 9.0), step(2, 8.0), *({**step(n, 0.0), "loss": "nan"} for n in (3, 4))]
    folder = write_run(tmp_path / "run", rows)
    (folder / "checkpoints" / "nano--step=3-consumed_samples=64.0" / "weights").mkdir(parents=True)
    text = drawn(folder).text
    assert "9.000 → not finite" in text
    assert "last finite value 8.000" in text
    saved = text.split("After step")[1].split("consumed_samples")[0]
    assert "not finite" in saved
    assert "8.000" not in saved

    again = write_run(tmp_path / "again", [*rows, start(2), step(3, 7.0), step(4, 6.0)])
    assert "9.000 → 6.000" in drawn(again).text


def test_a_moved_run_is_read_from_its_new_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "there", [start(), step(1, 9.0)])
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    (tmp_path / "here" / "metrics.jsonl").write_text(json.dumps(step(2, 5.0)) + "\n")
    assert str(tmp_path / "here") in drawn(tmp_path / "here").text
    capsys.readouterr()
    assert status.main([str(tmp_path / "here"), "--json"]) == 1  # it has stopped
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["loss"]) == (str(tmp_path / "here"), 5.0)


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    page = drawn(write_run(tmp_path / "run", []))
    assert "not started" in page.text
    assert "No step has been recorded yet" in page.text


def test_a_run_whose_command_was_killed_before_its_first_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [])
    (run / "logs").mkdir()
    (run / "logs" / "launcher.log").write_text("importing\n")
    job = subprocess.Popen(["sleep", "60"], env={**os.environ, **processes.marked(run)})
    try:
        assert "not started" in drawn(run).text  # it may still be importing NeMo
    finally:
        job.kill()
        job.wait()
    assert status.main([str(run)]) == 1
    text = drawn(run).text
    assert "stopped" in text
    assert "not started" not in text


def test_templates_are_read_only_when_a_page_is_drawn() -> None:
    code = "import sys; from nemolaunch.cli.commands import report, status; print('jinja2' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["loss.png", "loss.svg"])
def test_the_loss_as_an_image(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run", [start(), *(step(n, 9.0 - n / 20) for n in range(1, 101))])
    output = tmp_path / name
    assert report.main([str(folder), "-o", str(tmp_path / "page.html"), "--png", str(output)]) == 0
    begin = output.read_bytes()[:200]
    assert begin.startswith(b"\x89PNG") or b"<svg" in begin or b"<?xml" in begin


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is not a run folder"),
        (["run", "run"], "is given twice"),
        (["run", "--png", "loss.bmp"], "must end in .png"),
    ],
)
def test_mistakes_are_reported(
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run", [start(), step(1, 9.0)])
    monkeypatch.chdir(tmp_path)
    assert report.main([*words, "-o", "page.html"]) in (1, 2)
    assert said in capsys.readouterr().err
