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
# ("lookup"), or in both numbers the embedding and the output matrix ("both"), or a second embedding ("layers"), or
# layers that predict further tokens ("further", which this test never counts). None: what is published does not say
# what it counts
PUBLISHED: dict[str, tuple[float, float | None, str]] = {
    "ernie45_21b_a3b": (21.8, 3, "lookup"),  # baidu/ERNIE, README: 21B-A3B; its files have 21.8B
    "exaone4_1p2b": (1.28, 1.28, ""),  # arXiv 2507.11407
    # its card, without the second embedding, which is "looked up" too
    "gemma4_e2b": (2.3, 2.3, "layers"),
    "gemma4_e4b": (7.5, 7.5, ""),  # fairseq2, docs/source/reference/fairseq2.models.gemma4
    "gemma4_26b_a4b": (25.2, 3.8, ""),
    "gemma4_31b": (30.7, 30.7, ""),  # its card
    "glm45": (355, 32, "further"),  # its README
    "glm45_air": (106, 12, "further"),
    "glm47_flash": (30, None, "further"),  # its card: 30B-A3B
    "gpt_oss_120b": (116.8, 5.1, "lookup"),  # arXiv 2508.10925, table 1, which counts the embedding once
    "gpt_oss_20b": (20.9, 3.6, "lookup"),
    "hy3_295b_a21b": (295, 21, "further"),  # its card
    "k_exaone_236b_a23b": (236, 23, "further"),  # arXiv 2601.01739
    "kimi_k2": (1040, 32.6, ""),  # arXiv 2507.20534
    "ling_mini_2": (16, 1.4, ""),  # inclusionAI/Ling-V2, README
    "mimo_7b": (7, 7, "further"),  # arXiv 2505.07608
    "minimax_m2": (230, 10, ""),  # transformers' page of it
    "moonlight_16b": (15.29, 2.24, "both"),  # arXiv 2502.16982, table 4
    "nemotron_3_nano_30b_a3b": (31.6, 3.6, ""),  # arXiv 2512.20848
    "nemotron_3_nano_4b": (3.97, 3.97, ""),  # its card
    "nemotron_3_super_120b_a12b": (120.6, 12.7, ""),  # its report: 120.6B, of which 12.7B are active
    "nemotron_3_ultra_550b_a55b": (550, 55, "lookup"),  # docs/models/nemotron/nemotron3-ultra.md of Bridge
    "olmoe_7b": (6.9, 1.3, ""),  # arXiv 2409.02060
    # the names of Qwen3.5
    "qwen35_800m": (0.8, 0.8, ""),
    "qwen35_4b": (4, 4, ""),
    "qwen35_9b": (9, 9, ""),
    "qwen35_27b": (27, 27, ""),
    "qwen35_35b_a3b": (35, 3, "lookup"),  # its card
    "qwen35_122b_a10b": (122, 10, "lookup"),
    "qwen35_397b_a17b": (397, 17, "lookup"),
    "qwen3_next_80b_a3b": (79, 3, "both"),  # its card: 80B, of which 79 are no embeddings
    "sarvam_30b": (30, None, "both"),  # docs/models/sarvam/sarvam.md of Bridge, and its 3B
    "sarvam_105b": (105, 10.3, "both"),
}
# whole billions
ROUGH = {
    "ernie45_21b_a3b", "glm45", "glm45_air", "glm47_flash", "hy3_295b_a21b", "k_exaone_236b_a23b", "kimi_k2",
    "minimax_m2", "nemotron_3_ultra_550b_a55b", "qwen35_9b", "qwen35_27b", "qwen35_35b_a3b", "qwen35_122b_a10b",
    "qwen35_397b_a17b", "qwen3_next_80b_a3b", "sarvam_30b", "sarvam_105b",
}  # fmt: skip
NAMES = {"ling_mini_2", "mimo_7b", "qwen35_800m", "qwen35_4b"}  # one digit


@pytest.mark.parametrize("name", catalogue.only_in_bridge())
def test_parameters_are_those_published(name: str) -> None:
    total, active, without = PUBLISHED[name]
    a = catalogue.model(name).architecture
    counts = arithmetic.parameters(a, a.known("vocab_size"))
    further = counts.layers[a.num_layers :]
    both = counts.embedding + counts.output_layer if without == "both" else 0
    both += counts.layer_embedding if without == "layers" else 0
    found = counts.total - both - sum(layer.total for layer in further)
    close, near = (0.1, 0.1) if name in NAMES else (0.015, 0.15) if name in ROUGH else (0.01, 0.02)
    assert found / 1e9 == pytest.approx(total, rel=close)
    looked_up = counts.embedding if without == "lookup" else both
    used = counts.active - looked_up - sum(layer.active for layer in further)
    if active is not None:
        assert used / 1e9 == pytest.approx(active, rel=near)


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
