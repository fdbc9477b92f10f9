"""What becomes of each field of a job, and of each model of the catalogue, when Megatron-Bridge trains it."""

from __future__ import annotations

from collections import Counter

import pytest

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_fields, bridge_models
from nemolaunch.job import Job, spec_of, specs


def test_every_field_of_a_job_is_in_one_table() -> None:
    tables = (bridge_fields.SET, bridge_fields.OURS, bridge_fields.REFUSED, bridge_fields.WITH_REFUSED)
    counts = Counter(name for table in tables for name in table)
    assert set(counts) == {spec.name for spec in specs()}
    assert {name for name, times in counts.items() if times > 1} == set()


def test_a_default_job_is_accepted() -> None:
    assert bridge_fields.refused(Job().values()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_mode", "stream"),
        ("objective", "mlm"),
        ("rampup_batch_size", "8:8:80"),
        ("set", ["a=1"]),
    ],
)
def test_what_bridge_does_not_do_is_refused(name: str, value: object) -> None:
    assert list(bridge_fields.refused(Job(**{name: value}).values())) == [name]


def test_what_a_refused_field_switches_on_is_refused_with_it() -> None:
    refusable = {**bridge_fields.REFUSED, **bridge_fields.REFUSED_VALUES}
    for name, switch in bridge_fields.WITH_REFUSED.items():
        accepted, _ = refusable[switch]
        assert spec_of(switch).default in accepted, name


TRAINS = {
    "llama2_7b", "llama3_8b", "llama31_405b", "llama32_1b", "mistral_7b", "mixtral_8x7b", "qwen2_7b", "qwen25_500m",
    "qwen3_600m", "qwen3_30b_a3b",
}  # fmt: skip
REASONS = {
    "t5_220m": "T5",
    "bert_110m": "BERT",
    "hyena_1b": "Hyena",
    "mamba2_130m": "Mamba",
    "llama4_e16": "code of its own",
    "gemma2_2b": "code of its own",
    "deepseek_v3": "code of its own",
}


def test_models_are_trained_or_refused_with_a_reason() -> None:
    for name in TRAINS:
        assert bridge_models.refusal(catalogue.model(name)) is None, name
    for name, word in REASONS.items():
        assert word in (bridge_models.refusal(catalogue.model(name)) or ""), name


def test_llama31_has_its_rope_scaling_in_the_names_of_bridge() -> None:
    """8 and 32 are the factors of Llama 3.1 and 3.2, `rope_scaling.factor` of their config.json."""
    for name, factor in (("llama31_8b", 8.0), ("llama32_1b", 32.0)):
        fields = bridge_models.model_fields(catalogue.model(name))
        assert (fields["rope_scaling"], fields["rope_scaling_factor"]) == (True, factor)
    assert "rope_scaling" not in bridge_models.model_fields(catalogue.model("llama3_8b"))
