"""The tables of containers and of releases that work together, and what is read from an image's name."""

from __future__ import annotations

import pytest
from check_jobs import job, resolved

from nemolaunch.catalogue.containers import container, containers, nearest_known, nemo_tag, newest_with_nemo2
from nemolaunch.catalogue.version_pairs import judge, patches, recipe_since
from nemolaunch.check import software
from nemolaunch.facts import Host
from nemolaunch.job import spec_of
from nemolaunch.nemo2.patches import PATCHES
from nemolaunch.planning.plan import compose

REGISTRY = "nvcr.io/nvidia/nemo"


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        (f"{REGISTRY}:26.02", "26.02"),
        ("nvcr.io#nvidia/nemo:25.11.01", "25.11.01"),
        ("docker://nvcr.io#nvidia/nemo:25.09", "25.09"),
        ("/images/nvidia+nemo+26.02.sqsh", "26.02"),
        (f"{REGISTRY}:25.09@sha256:0a1b", "25.09"),
        (REGISTRY, "latest"),
        ("registry.example/team/nemo:26.02", None),
        ("/images/nemo_26.02.sqsh", None),
        ("nvcr.io/nvidia/nemo-rl:v0.5.0", None),
        ("none", None),
    ],
)
def test_the_tag_of_an_image(image: str, tag: str | None) -> None:
    assert nemo_tag(image) == tag


def test_a_patch_release_of_a_month_has_its_versions_and_other_variants_do_not() -> None:
    assert container("26.02.01") == container("26.02")
    assert container("25.11.nemotron_3_nano") is None
    assert container("latest") is None


def test_the_default_image_is_the_newest_that_trains_nemo2() -> None:
    assert newest_with_nemo2().image == spec_of("container_image").default


def test_every_container_for_nemo2_has_releases_that_were_tested_together() -> None:
    known = [one for one in containers() if one.nemo2 and one.nemo and one.megatron]
    assert [one.tag for one in known] == ["25.09", "25.11", "26.02"]
    assert {judge(str(one.nemo), str(one.megatron)).status for one in known} == {"works"}


@pytest.mark.parametrize(("tag", "nearest"), [("25.07", "25.09"), ("25.12", "25.11"), ("dev", "26.02")])
def test_the_nearest_known_container(tag: str, nearest: str) -> None:
    assert nearest_known(tag).tag == nearest


def test_the_table_describes_each_patch() -> None:
    assert [patch.name for patch in patches()] == list(PATCHES)


def test_all_recipes_are_in_the_newest_container_for_nemo2() -> None:
    """Listed from `nemo/collections/llm/recipes` of the packages on PyPI: 2.3.2, 2.4.1, 2.5.3, 2.6.0, 2.7.0."""
    assert recipe_since("gemma3_1b") == "2.4"
    assert recipe_since("nemotron_nano_9b_v2") == "2.5"
    assert recipe_since("mistral_small3_24b") == "2.6"
    assert recipe_since("llama3_8b") is None


def test_the_plan_lists_patches_for_what_will_train_the_job() -> None:
    def names(model: str, host: Host | None = None, **values: object) -> list[str]:
        changed = {"host": host} if host else {}
        plan = compose(resolved(job(model, **values), **changed), ())
        return [sentence.partition(":")[0] for sentence in plan.patches]

    here = Host(gpus=("NVIDIA H100 80GB HBM3",) * 8, nemo="2.7.3", megatron="0.15.3")
    assert names("llama3_8b", here) == ["optimizer-arguments", "tensorstore"]  # those of the default image
    assert names("gemma3_1b") == ["optimizer-arguments", "tensorstore", "gemma3-arguments"]
    assert names("llama3_8b", container_image=f"{REGISTRY}:25.11") == []
    assert names("llama3_8b", here, executor="local") == []
    assert names("gemma3_1b", here, executor="local") == ["gemma3-arguments"]
    assert names("llama3_8b", here, container_image="none") == []
    assert names("llama3_8b", container_image="/my/image.sqsh") == []  # what is in it is not known


def test_what_is_known_of_a_container_is_checked_though_its_megatron_is_not() -> None:
    found = list(software.rules(resolved(job("qwen3_8b", container_image=f"{REGISTRY}:25.04.02"))))
    assert [finding.code for finding in found] == ["image-unknown", "recipe-not-in-release"]
    assert "(with NeMo 2.3.2): its release of Megatron-Core is not known" in found[0].message
    assert "came with NeMo 2.4" in found[1].message
