"""Recomputed modules: names, what models must have, and what a rehearsal leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from check_jobs import findings, job, resolved

from nemolaunch.estimate import layout_of_job

SELECTIVE: dict[str, Any] = {"recompute_granularity": "selective"}
RECOMPUTE = "recompute-modules"


@pytest.mark.parametrize(
    ("model", "modules", "expected"),
    [
        ("llama3_8b", ("mlp",), []),
        ("llama3_8b", ("moe_act",), [RECOMPUTE]),
        ("llama3_8b", ("mla_up_proj",), [RECOMPUTE]),
        ("llama3_8b", ("layernorm",), ["recompute-modules-not-used"]),
        ("llama3_8b", ("moe", "shared_experts"), ["recompute-modules-not-used"]),
        ("mixtral_8x7b", ("moe", "layernorm"), []),
        ("mixtral_8x7b", ("moe_act",), [RECOMPUTE]),  # its experts are computed one by one
        ("mixtral_8x7b", ("mlp",), ["recompute-modules-not-used"]),
        ("qwen3_30b_a3b", ("moe_act", "layernorm"), []),
        ("deepseek_v2", ("mla_up_proj", "layernorm", "mlp"), []),
        ("deepseek_v2", ("shared_experts",), [RECOMPUTE]),  # they overlap with communication
        ("mamba2_130m", ("core_attn",), ["recompute-modules-not-used"]),
    ],
)
def test_modules_of_a_model(model: str, modules: tuple[str, ...], expected: list[str]) -> None:
    found = findings(model, recompute_modules=modules, **SELECTIVE)
    assert [f.code for f in found if f.code.startswith(RECOMPUTE)] == expected


def test_a_misspelt_module_is_replaced_and_the_rest_kept() -> None:
    values = {**SELECTIVE, "recompute_modules": ("mlp", "core_atn", "attention_and_more")}
    (found,) = [f for f in findings("llama3_8b", **values) if f.code == RECOMPUTE]
    assert "core_atn" in found.message
    assert "attention_and_more" in found.message
    assert [fix.changes for fix in found.fixes] == [{"recompute_modules": ("mlp", "core_attn")}]


def test_modules_apply_to_the_recipes_own_selective_recompute() -> None:
    found = resolved(job("deepseek_v3", recompute_modules=("mla_up_proj",)))
    layout = layout_of_job(found.job, found.model, 1024)
    assert (layout.recompute_granularity, layout.recompute_modules) == ("selective", ("mla_up_proj",))
    assert not [
        f for f in findings("deepseek_v3", recompute_modules=("mla_up_proj",)) if f.code.startswith(RECOMPUTE)
    ]


def test_a_rehearsal_leaves_out_what_needs_transformer_engine() -> None:
    here = {"executor": "local", "device": "cpu", **SELECTIVE}
    some = resolved(job("mixtral_8x7b", recompute_modules=("moe", "layernorm"), **here))
    assert some.job.memory.recompute_modules == ("moe",)
    assert any("recomputation of layernorm" in text for text in some.left_out)
    none = resolved(job("mixtral_8x7b", recompute_modules=("layernorm",), **here))
    assert none.job.memory.recompute_granularity is None
    codes = [f.code for f in findings("mixtral_8x7b", recompute_modules=("layernorm",), **here)]
    assert not [code for code in codes if code.startswith("recompute")]
