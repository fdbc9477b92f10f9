"""`-M hf` trains the model that `nemolaunch convert` makes of the same folder, in every family."""

from __future__ import annotations

from pathlib import Path

import check_jobs
import pytest
from forkserver import ForkServer
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.errors import UsageError
from nemolaunch.facts import Host
from nemolaunch.planning import Plan, make_plan
from nemolaunch.tokenizer.inspection import look_at_tokenizer

# NeMo has no pretraining recipe for them; of the first, Megatron-Bridge has one
WITH_BRIDGE = "gpt oss"
NO_RECIPE = (WITH_BRIDGE, "llama nemotron blocks")


def planned(folder: Path) -> Plan:
    values = {"hf_model_id": str(folder / "source"), "seq_length": 64, "device": "cpu", "max_steps": 1}
    job = check_jobs.job("hf", output_dir=str(folder / "run"), **values)
    tokenizer = look_at_tokenizer(str(folder / "source"))
    return make_plan(job, facts=check_jobs.facts(job, host=Host(num_cpus=8), tokenizer=tokenizer))


def test_the_configuration_is_that_of_a_conversion(fork_server: ForkServer, tmp_path: Path) -> None:
    pairs = {}
    for name, model in ZOO.items():
        if name in NO_RECIPE:
            continue
        folder = tmp_path / name
        model.write(folder / "source")
        convert(folder / "source", folder / "nemo", "nemo2", Options())
        planned(folder).save(folder / "plan.json")
        pairs[name] = (str(folder / "plan.json"), str(folder / "nemo"))
    (found,) = fork_server.run("nemo2.hf_models_job:different", {"pairs": list(pairs.values())})
    assert {name: found[plan] for name, (plan, _) in pairs.items() if found[plan]} == {}


def test_a_model_without_a_recipe_is_refused(tmp_path: Path) -> None:
    ZOO["llama nemotron blocks"].write(tmp_path / "source")
    with pytest.raises(UsageError, match="no pretraining recipe"):
        planned(tmp_path)


def test_a_model_that_only_bridge_trains_is_refused_for_nemo(tmp_path: Path) -> None:
    ZOO[WITH_BRIDGE].write(tmp_path / "source")
    assert [found.code for found in planned(tmp_path).findings] == ["bridge-only"]
