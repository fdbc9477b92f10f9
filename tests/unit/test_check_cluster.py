"""What Slurm reports about the cluster, and what the checks conclude from it."""

from __future__ import annotations

import pytest
from check_jobs import findings

from nemolaunch.facts.cluster import Partition, parse_sinfo
from nemolaunch.findings import Finding

# output of sinfo: two kinds of nodes in one partition, MIG slices, a partition that is down
ANSWER = """\
gpu|2-00:00:00|48|gpu:h100:8(S:0-1)|up|30/16/2/48|1-64
gpu|2-00:00:00|16|gpu:h100:8(S:0-1)|up|0/16/0/16|1-64
mixed|infinite|2|gpu:a100:4,gpu:1g.10gb:7|up|0/2/0/2|1-infinite
mixed|infinite|2|gpu:3090:2|up|0/2/0/2|1-infinite
plain|30:00|3|gpu:4|down|0/0/3/3|1-infinite
cpu|n/a|9|(null)|up|1/8/0/9|1-infinite
nonsense
"""


def test_partitions_are_read() -> None:
    gpu, mixed, plain, cpu = parse_sinfo(ANSWER)
    assert gpu == Partition(
        name="gpu",
        num_nodes=64,
        usable_nodes=62,
        time_limit_s=172800,
        most_nodes=64,
        gpus_per_node=8,
        gpus=("h100",),
    )
    assert (mixed.gpus, mixed.gpus_per_node) == (("a100", "1g.10gb", "3090"), 11)
    assert (plain.up, plain.gpus, plain.gpus_per_node) == (False, (), 4)
    assert (cpu.gpus_per_node, cpu.time_limit_s) == (None, None)


def finding_of(code: str, **values: object) -> Finding:
    facts = {"partitions": parse_sinfo(ANSWER), "accounts": ("physics", "chemistry")}
    sound = {"partition": "gpu", "account": "physics"}
    return next(f for f in findings(changed=facts, **{**sound, **values}) if f.code == code)  # type: ignore[arg-type]


def test_a_job_larger_than_what_is_up_waits() -> None:
    assert finding_of("slurm-nodes-down", num_nodes=63).fixes[0].changes == {"num_nodes": 62}
    assert finding_of("slurm-nodes", num_nodes=65).fixes[0].changes == {"num_nodes": 64}


def test_an_account_is_one_of_the_users() -> None:
    assert finding_of("slurm-account", account="fysics").fixes[0].changes == {"account": "physics"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("12h", "12:00:00"),
        ("1.5 days", "1-12:00:00"),
        ("1d 12h", "1-12:00:00"),
        ("90min", "01:30:00"),
        ("x", "1-00:00:00"),
    ],
)
def test_an_informal_time_is_converted_to_slurms_format(given: str, meant: str) -> None:
    assert finding_of("slurm-time", time=given).fixes[0].changes == {"time": meant}
