"""Every field of every family's config.json, as transformers 4.57 and 5.12 write it: understood, harmless or refused.

The files in `configs/` are transformers' own, with what its models compute from them: see `write_configs.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemolaunch.catalogue.hf_config import model_from_hf_config
from nemolaunch.checkpoint.hf.loading import loadable
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.config_json import HARMLESS
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.families.registry import FAMILIES

FILES = sorted(Path(__file__).with_name("configs").glob("transformers-*.json"))
TABLES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
MODELS = [(version, name) for version, table in TABLES.items() for name in table]


def understood(config: dict[str, Any]) -> NemoConfig:
    """What the family's table makes of a `config.json`."""
    return FAMILIES[config["model_type"]].to_nemo(config)


def variation(version: str, name: str, change: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` of a variation."""
    base = TABLES[version][name]["config"]
    return {key: value for key, value in {**base, **change["set"]}.items() if key not in change["removed"]}


def test_both_versions_are_there() -> None:
    assert [path.stem for path in FILES] == ["transformers-4.57.6", "transformers-5.12.1"]
    assert all(len(table) > 15 for table in TABLES.values())


@pytest.mark.parametrize(("version", "name"), MODELS)
def test_no_field_is_skipped(version: str, name: str) -> None:
    """What makes transformers' model compute something else changes NeMo's configuration, or is refused by name."""
    before = understood(TABLES[version][name]["config"])
    skipped, refused, changed = [], [], []
    for label, change in TABLES[version][name]["varied"].items():
        config = variation(version, name, change)
        try:
            after = understood(config)
        except NemolaunchError:
            refused.append(label)
            continue
        if after.resolved != before.resolved or after.config_class != before.config_class:
            changed.append(label)
        elif change["computes_other"] and not model_from_hf_config(config, name).notes:
            skipped.append(label)
    assert skipped == []
    assert len(changed) > 6
    assert not {label.partition("=")[0] for label in refused} & HARMLESS


@pytest.mark.parametrize("name", sorted(TABLES["transformers-5.12.1"]))
def test_both_versions_say_the_same(name: str) -> None:
    """The same model, written by transformers 4 and by transformers 5."""
    old, new = (understood(TABLES[version][name]["config"]) for version in sorted(TABLES))
    ignored = {"moe_aux_loss_coeff"}  # its default changed in some families
    assert old.config_class == new.config_class
    assert {k: v for k, v in old.fields.items() if k not in ignored} == {
        k: v for k, v in new.fields.items() if k not in ignored
    }


def test_an_unknown_key_is_refused_by_name() -> None:
    config = TABLES["transformers-4.57.6"]["llama"]["config"]
    with pytest.raises(NemolaunchError, match="attention_gate = True"):
        understood({**config, "attention_gate": True})


def test_a_file_that_contradicts_itself_is_refused() -> None:
    config = TABLES["transformers-4.57.6"]["llama"]["config"]
    both = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    with pytest.raises(
        NemolaunchError, match=r"rope_theta is 10000.0, but rope_parameters.rope_theta says 500000.0"
    ):
        understood(both)


# Version 5 keeps all experts' weights in one tensor, so random weights by the order of parameters are others
STACKED = {"deepseek_v2", "deepseek_v3", "mixtral", "qwen3_moe"}


@pytest.mark.parametrize("name", sorted({*TABLES["transformers-5.12.1"]} - STACKED))
def test_transformers_4_computes_what_transformers_5_does(name: str, tmp_path: Path) -> None:
    """huggingface/trl#6961, sgl-project/sglang#26013, huggingface/transformers#41934: a folder of transformers 5 that
    transformers 4 loads has the log-probabilities that transformers 5.12.1 computed from it.
    """
    import transformers
    from field.write_configs import log_probability, logits, set_weights

    table = TABLES["transformers-5.12.1"][name]
    (tmp_path / "config.json").write_text(json.dumps(table["config"]))
    with loadable(tmp_path) as folder:
        config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    set_weights(model)
    assert log_probability(logits(model)) == pytest.approx(table["log_probability"], rel=1e-5)
