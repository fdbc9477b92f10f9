"""Blends in a real run: what was planned is what Megatron feeds, also after another blend on resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from e2e.jobs import TOKENIZER, planned, prepared, train
from forkserver import ForkServer

from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.planning import make_plan
from nemolaunch.run import metrics

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"


def sources(folder: Path) -> tuple[str, str]:
    for name in ("en", "zh_hant"):
        words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", name, "--output-dir", str(folder)]
        assert tokenize([*words, "--input-dir", str(CORPUS / f"{name}.jsonl")]) == 0
    a, b = (f"{folder}/preprocessed/{name}_text_document" for name in ("en", "zh_hant"))
    return a, b


def test_the_ledger_is_what_is_read_also_after_a_change(fork_server: ForkServer, tmp_path: Path) -> None:
    a, b = sources(tmp_path)
    before = planned(tmp_path, f"{a}:0.7,{b}:0.3", max_steps=5)
    (first,) = train(fork_server, before)
    assert Counter(first["prefixes"]) == {s.path: s.samples for s in before.ledger} == {a: 56, b: 24}
    (end,) = [row for row in metrics.read(before.run.metrics) if row.get("event") == "end"]
    assert end["samples_by_prefix"] == [56, 24]

    changed = before.job.with_values(dataset_dir=(f"{a}:0.2,{b}:0.8",), max_steps=10)
    after = make_plan(Job().with_values(**changed.values()))
    assert not errors(after.findings)
    (said,) = [f.message for f in after.findings if f.code == "run-of-other-data"]
    assert "with sample 80 of the new order" in said
    assert f"about 40 samples of {a} are read again" in said
    assert f"about 40 samples of {b} are skipped" in said

    (second,) = train(fork_server, prepared(after))
    order = {s.path: s.samples for s in after.ledger}
    assert Counter(second["prefixes"]) == {a: order[a] - 16, b: order[b] - 64}
    ids = {prefix: _ids(first, prefix) & _ids(second, prefix) for prefix in (a, b)}
    assert len(ids[a]) == 16  # all of the 16 read now had been read: 56 before, and the new order began at 16
    assert not ids[b]


def _ids(result: dict[str, list[object]], prefix: str) -> set[object]:
    return {i for i, p in zip(result["samples"], result["prefixes"], strict=True) if p == prefix}
