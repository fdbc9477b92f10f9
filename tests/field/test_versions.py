"""Releases that do not fit together: one test a public report, with the right value and where that comes from.

That the pairs of the containers train is tested in `tests/versions`.
"""

from __future__ import annotations

from typing import Any

import pytest
from check_jobs import findings

from nemolaunch.findings import Finding, Severity
from nemolaunch.observe.failure_patterns import cause_of

REGISTRY = "nvcr.io/nvidia/nemo"


def about(code: str, model: str = "llama3_8b", **values: Any) -> Finding:
    (found,) = [finding for finding in findings(model, **values) if finding.code == code]
    return found


@pytest.mark.parametrize(
    "said",
    [
        "TypeError: get_megatron_optimizer() got an unexpected keyword argument 'no_weight_decay_cond'",
        "ImportError: megatron-core was not found. Please see the NeMo README for installation instructions",
    ],
)
def test_the_default_container_is_diagnosed_by_its_releases(said: str) -> None:
    """NVIDIA-NeMo/Speech#15458: NeMo 2.7.0 with Megatron-Core 0.16.0, which nvcr.io/nvidia/nemo:26.02 ships. The words
    are those that this pair writes without the patches; no package is missing.
    """
    cause = cause_of(f"rank 0: {said}")
    assert cause is not None
    assert cause.code == "versions"
    assert "NeMo and Megatron-Core" in cause.meaning


def test_a_container_without_nemo2_names_the_last_one_with_it() -> None:
    """NVIDIA-NeMo/Speech#15009: NeMo's part for LLMs moved to Megatron-Bridge. By Megatron-Bridge's table of software
    versions, 26.02 with NeMo 2.7 is the last container that has it; NeMo 3.0 on PyPI has no nemo.collections.llm.
    """
    for tag in ("26.04", "26.06", "26.08", "26.04.01"):
        found = about("image-without-nemo2", container_image=f"{REGISTRY}:{tag}", backend="nemo2")
        assert found.severity is Severity.ERROR
        changes = [fix.changes for fix in found.fixes]
        assert changes == [{"container_image": f"{REGISTRY}:26.02"}, {"backend": "bridge"}]


def test_a_tag_with_a_broken_pair_is_refused() -> None:
    """NVIDIA-NeMo/Speech#15003: in nvcr.io/nvidia/nemo:25.09.nemotron_nano_v2_vl, nemo.collections.llm cannot be
    imported with its Megatron-Core; 25.09 itself can.
    """
    found = about("image-without-nemo2", container_image=f"{REGISTRY}:25.09.nemotron_nano_v2_vl")
    assert "Speech#15003" in found.message
    codes = {finding.code for finding in findings(container_image=f"{REGISTRY}:25.09")}
    assert not {"image-without-nemo2", "image-unknown", "versions-untested"} & codes


def test_a_recipe_that_the_container_lacks() -> None:
    """NVIDIA-NeMo/Speech#14784 added mistral_small3_24b, which is in NeMo 2.6.0 and not in 2.5.0 of PyPI."""
    found = about("recipe-not-in-release", "mistral_small3_24b", container_image=f"{REGISTRY}:25.09")
    assert "NeMo 2.5.0" in found.message
    assert [fix.changes for fix in found.fixes] == [{"container_image": f"{REGISTRY}:25.11"}]
