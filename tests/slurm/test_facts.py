"""What a plan learns from a real cluster: partitions, nodes that are up, GPUs, accounts that may be billed."""

from __future__ import annotations

import subprocess

from check_jobs import findings
from slurm.cluster import Cluster
from slurm.cluster_config import NUM_GPUS

from nemolaunch.facts.cluster import look_at_cluster
from nemolaunch.facts.partitions import parse_sinfo
from nemolaunch.facts.slurm_time import seconds


def test_partitions_and_accounts_are_seen(client: Cluster) -> None:
    found = look_at_cluster()
    main, short, urgent = sorted(found.partitions, key=lambda p: p.name)
    assert (main.name, main.num_nodes, main.gpus_per_node, main.up) == ("main", 2, NUM_GPUS, True)
    assert (main.time_limit_s, short.time_limit_s, urgent.time_limit_s) == (7 * 86400, 1800, None)
    assert main.most_nodes is None
    assert (main.default, short.default) == (True, False)
    assert not found.accounting.enforced  # any account may be billed here


def test_what_is_more_than_there_is_is_refused(client: Cluster) -> None:
    known = {"partitions": look_at_cluster().partitions}
    asked = {"partition": "main", "num_nodes": 3, "num_gpus": NUM_GPUS + 1, "time": "8-00:00:00"}
    codes = {f.code for f in findings("llama32_1b", changed=known, **asked)}
    assert {"slurm-nodes", "slurm-gpus", "slurm-time-limit"} <= codes
    assert "slurm-partition" in {f.code for f in findings("llama32_1b", changed=known, partition="mian")}


def test_a_time_that_passes_the_checks_passes_slurm(client: Cluster) -> None:
    for text in ("90", "30:00", "12:00:00", "3-0", "1-12:30", "1-2:03:04", "25:61:00", "0-90"):
        assert seconds(text)
        asked = ["sbatch", "--test-only", "-p", "main", "-t", text, "--wrap", "true"]
        done = subprocess.run(asked, env=client.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (text, done.stderr)


def test_a_node_that_is_down_is_not_counted_as_usable(client: Cluster) -> None:
    client.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    try:
        (main,) = (p for p in look_at_cluster().partitions if p.name == "main")
    finally:
        client.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    assert (main.num_nodes, main.usable_nodes) == (2, 1)
    down = findings("llama32_1b", changed={"partitions": (main,)}, partition="main", num_nodes=2, num_gpus=4)
    assert "slurm-nodes-down" in {f.code for f in down}


def test_names_of_gpus_are_read_as_slurm_writes_them(client: Cluster) -> None:
    written = client.run("sinfo", "--noheader", "--format=%R|%l|%D|%G|%a|%F|%s")
    seen = [(p.name, p.kinds) for p in look_at_cluster().partitions]
    assert [(p.name, p.kinds) for p in parse_sinfo(written)] == seen
