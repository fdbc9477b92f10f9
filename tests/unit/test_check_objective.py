"""Masked language modelling: suggestions, what follows from model and tokenizer, and what may change on resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from check_jobs import findings, job, resolved

from nemolaunch.facts import EarlierRun
from nemolaunch.facts.checkpoint import StartPoint
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.findings import Finding, Severity
from nemolaunch.tokenizer.inspection import Tokenizer, look_at_tokenizer
from nemolaunch.tokenizer.vocabulary import MASK, name_mask_token, spare

RESERVED = [f"<|reserved_special_token_{n}|>" for n in range(12)]
LLAMA = Tokenizer(
    source="/llama", folder="/llama", words=frozenset(["a", "<s>", *RESERVED]), roles={"bos_token": "<s>"}
)


def only_finding(code: str, *args: Any, **values: Any) -> Finding:
    (found,) = [finding for finding in findings(*args, **values) if finding.code == code]
    return found


def test_a_reserved_token_is_suggested_where_the_tokenizer_names_none() -> None:
    found = only_finding("mask-token-missing", objective="mlm", changed={"tokenizer": LLAMA})
    assert [fix.changes["mask_token"] for fix in found.fixes] == RESERVED[:2]


def test_the_nearest_token_is_suggested_for_an_unknown_one() -> None:
    typed = "<|reserved_special_token_100|>"
    found = only_finding(
        "mask-token-unknown", objective="mlm", mask_token=typed, changed={"tokenizer": LLAMA}
    )
    assert found.fixes[0].changes["mask_token"] == "<|reserved_special_token_10|>"


def test_spare_tokens_are_those_whose_names_say_so_in_the_order_of_their_numbers() -> None:
    words = ["reserved", "[unused10]", "[unused2]", "<extra_id_0>", "[MASK]", "<s>", "<|reserved_1|>"]
    assert spare(words, ["<s>"]) == ["[MASK]", "<extra_id_0>", "<|reserved_1|>", "[unused2]", "[unused10]"]


def test_the_tokenizers_own_mask_token_is_used(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 0, "<m>": 1}}, "added_tokens": []})
    )
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "a"}}))
    name_mask_token(tmp_path, "<m>")
    found = look_at_tokenizer(str(tmp_path))
    assert found.roles == {"eos_token": "a", MASK: "<m>"}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        assert json.loads((tmp_path / name).read_text())[MASK] == "<m>"
    got = resolved(job(objective="mlm"), tokenizer=found)
    assert got.job.objective.mask_token == "<m>"
    assert got.origins["mask_token"] == "the tokenizer"


def test_bert_is_always_masked() -> None:
    got = resolved(job("bert_110m"))
    assert got.job.objective.objective == "mlm"
    assert got.origins["objective"] == "the model bert_110m"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("mamba2_130m", "state space"),
        ("mistral_7b", "window only looks back"),
        ("deepseek_v3", "multi-latent"),
        ("llama4_e16", "chunked"),
        ("t5_220m", "left to right"),
    ],
)
def test_models_that_cannot_attend_to_both_sides_get_a_reason(model: str, why: str) -> None:
    found = only_finding("objective-unsupported", model, objective="mlm")
    assert why in found.message
    assert found.fixes[0].changes == {"objective": "clm"}


def test_weights_of_the_other_objective_can_be_a_start_but_not_be_resumed() -> None:
    causal = StartPoint(path="/x", both_sides=False)
    masked = {"objective": "mlm", "mask_token": "<|reserved_0|>"}
    weights = only_finding("checkpoint-other-objective", **masked, changed={"weights": causal})
    assert weights.severity is Severity.NOTE
    resumed = only_finding("checkpoint-other-objective", **masked, changed={"resume": causal})
    assert resumed.severity is Severity.ERROR
    assert resumed.fixes[0].changes == {"objective": "clm"}


def test_a_resumed_run_may_mask_differently_with_a_warning() -> None:
    before = {"objective": "mlm", "mlm_probability": 0.15, "mask_token": "<|reserved_0|>"}
    run = EarlierRun(
        folder="/runs/x", last_checkpoint="/runs/x/last", next_step=50, saved=SavedRun(values=before)
    )
    found = only_finding(
        "run-of-other-objective", objective="mlm", mask_token="<|reserved_0|>", changed={"run": run}
    )
    assert found.severity is Severity.WARNING
    assert found.fixes[0].changes == {"mlm_probability": 0.15}
