"""Models that only Megatron-Bridge has: found, counted, planned with it, and refused with NeMo 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_jobs import codes, job, resolved
from truth.bridge_verdict import FACTS, in_own_layout

from nemolaunch import arithmetic, catalogue
from nemolaunch.catalogue import bridge_models
from nemolaunch.check import check
from nemolaunch.findings import errors

# Billions of parameters as published, in all and for one token, and what they do not count: for one token the embedding
# ("lookup"), or in both numbers the embedding and the output matrix ("both"), or layers that predict further tokens
# ("further", which this test never counts)
PUBLISHED = {
    "glm45": (355, 32, "further"),  # its README
    "glm45_air": (106, 12, "further"),
    "gpt_oss_120b": (116.8, 5.1, "lookup"),  # arXiv 2508.10925, table 1, which counts the embedding once
    "gpt_oss_20b": (20.9, 3.6, "lookup"),
    "kimi_k2": (1040, 32.6, ""),  # arXiv 2507.20534
    "minimax_m2": (230, 10, ""),  # transformers' page of it
    "moonlight_16b": (15.29, 2.24, "both"),  # arXiv 2502.16982, table 4
    "nemotron_3_nano_30b_a3b": (31.6, 3.6, ""),  # arXiv 2512.20848
    "olmoe_7b": (6.9, 1.3, ""),  # arXiv 2409.02060
    "qwen35_35b_a3b": (35, 3, "lookup"),  # its card
    "qwen3_next_80b_a3b": (79, 3, "both"),  # its card: 80B, of which 79 are no embeddings
}
ROUGH = {
    "glm45",
    "glm45_air",
    "kimi_k2",
    "minimax_m2",
    "qwen35_35b_a3b",
    "qwen3_next_80b_a3b",
}  # whole billions


@pytest.mark.parametrize("name", catalogue.only_in_bridge())
def test_parameters_are_those_published(name: str) -> None:
    total, active, without = PUBLISHED[name]
    a = catalogue.model(name).architecture
    counts = arithmetic.parameters(a, a.known("vocab_size"))
    further = counts.layers[a.num_layers :]
    both = counts.embedding + counts.output_layer if without == "both" else 0
    found = counts.total - both - sum(layer.total for layer in further)
    assert found / 1e9 == pytest.approx(total, rel=0.015 if name in ROUGH else 0.01)
    looked_up = counts.embedding if without == "lookup" else both
    used = counts.active - looked_up - sum(layer.active for layer in further)
    assert used / 1e9 == pytest.approx(active, rel=0.15 if name in ROUGH else 0.02)


@pytest.mark.parametrize("name", catalogue.only_in_bridge())
def test_only_bridge_trains_them(name: str) -> None:
    assert bridge_models.refusal(catalogue.model(name)) is None
    assert "bridge-only" in codes(name)
    asked = job(**in_own_layout(name))
    assert errors(check(resolved(asked, **FACTS))) == ()


def test_a_file_can_start_from_one(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("base: olmoe_7b\nnum_layers: 2\n")
    assert bridge_models.model_fields(catalogue.model(str(path)))["num_layers"] == 2
