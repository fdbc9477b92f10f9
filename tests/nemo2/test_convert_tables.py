"""The data about NeMo that conversions use, compared with NeMo itself."""

from __future__ import annotations

import json

from forkserver import ForkServer

from nemolaunch import catalogue
from nemolaunch.families import nemo_config
from nemolaunch.families.registry import FAMILIES


def test_the_configuration_classes_are_nemos(fork_server: ForkServer) -> None:
    (table,) = fork_server.run("nemo2.convert_job:configs_table")
    assert table == json.loads(nemo_config.TABLE.read_text(encoding="utf-8")), (
        "run `python -m nemolaunch.nemo2.config_dump`"
    )


def test_every_class_that_nemo_converts_has_a_family() -> None:
    of_nemo = [family for family in FAMILIES.values() if not family.only_in_bridge]
    covered = {name for family in of_nemo for name in (family.model_class, *family.also)}
    assert covered == set(catalogue.hf_configs())
