"""What Slurm reports about the cluster, and what the checks conclude from it."""

from __future__ import annotations

from typing import Any

import pytest
import recorded_slurm
from check_jobs import findings, job, resolved

from nemolaunch.facts.accounting import Limits, parse_accounting
from nemolaunch.facts.gres import parse_gres
from nemolaunch.facts.partitions import parse_sinfo, with_limits
from nemolaunch.findings import Finding

PARTITIONS = with_limits(parse_sinfo(recorded_slurm.SINFO), recorded_slurm.PARTITIONS)
ACCOUNTING = parse_accounting(recorded_slurm.CONFIG, recorded_slurm.ASSOCIATIONS, recorded_slurm.QUALITIES)
FACTS: dict[str, Any] = {"partitions": PARTITIONS, "accounting": ACCOUNTING}


def test_partitions_are_read_with_both_ends_of_their_range() -> None:
    by_name = {p.name: p for p in PARTITIONS}
    large = by_name["large"]
    assert (large.least_nodes, large.most_nodes, large.time_limit_s) == (2, 4, 12 * 3600)
    assert (large.accounts, large.allowed_qos) == (("chemistry",), ("normal", "large"))
    assert [p.state for p in PARTITIONS] == ["up"] * 4 + ["down", "drain", "inactive"]
    assert [p.name for p in PARTITIONS if p.default] == ["gpu"]
    assert by_name["slices"].qos == "brief"
    assert by_name["cpu"].time_limit_s == 86400
    assert by_name["slices"].time_limit_s is None


def test_slices_of_gpus_are_no_gpus() -> None:
    gpu, _, slices, cpu, *_ = PARTITIONS
    assert [(kind.num_nodes, kind.gpus()) for kind in gpu.kinds] == [(6, 4), (2, 8)]
    # 3 nodes with 6 whole GPUs and 14 slices, 1 with slices only
    assert [(k.gpus(), k.slices()) for k in slices.kinds] == [(6, 14), (0, 3)]
    assert (slices.gpus_per_node, slices.gpus) == (6, ("a100",))
    assert cpu.gpus_per_node is None


# `(S:0-1)` etc.: outputs of Slurm 25.05, 25.11 and 26.05 in the test data of SckyzO/slurm_exporter
@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:nvidia_gb200:4(S:0-3)", [("nvidia_gb200", 4)]),
        ("gpu:model_a:2,gpu:model_b:2", [("model_a", 2), ("model_b", 2)]),
        ("gpu:model_a:2(IDX:0,3)", [("model_a", 2)]),
        ("gpu:model_a:0(IDX:N/A)", [("model_a", 0)]),
        ("gpu:8(S:0-1)", [("", 8)]),
        ("gpu:(null):3(IDX:0-7)", [("", 3)]),
        ("gpu:tesla_v100-sxm3-32gb:16(S:0-1)", [("tesla_v100-sxm3-32gb", 16)]),
        ("gpu:nvidia_a100_1g.5gb:21(S:0-1)", []),
        ("gpu:1g.10gb+me:1,gpu:a100_3g.20gb:2,gpu:a100-mig:7", []),
        ("(null)", []),
    ],
)
def test_generic_resources_are_read_as_slurm_writes_them(text: str, gpus: list[tuple[str, int]]) -> None:
    assert [(g.type, g.count) for g in parse_gres(text) or () if g.is_gpu] == gpus


@pytest.mark.parametrize("text", ["gpu=8", "gpu:8x", "gpu:h100:", ":8", "gpu 8", "8"])
def test_other_forms_are_not_generic_resources(text: str) -> None:
    assert parse_gres(text) is None


def finding_of(code: str, **values: object) -> Finding:
    sound = {"partition": "gpu", "account": "physics"}
    return next(f for f in findings(changed=FACTS, **{**sound, **values}) if f.code == code)  # type: ignore[arg-type]


def codes_of(**values: object) -> set[str]:
    asked = {"partition": "gpu", "account": "physics", "num_gpus": 4, **values}
    return {f.code for f in findings(changed=FACTS, **asked)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "code", "fixes"),
    [
        ({"num_nodes": 4, "num_gpus": 8}, "slurm-nodes", [{"num_nodes": 2}, {"num_gpus": 4}]),
        ({"num_nodes": 9, "num_gpus": 4}, "slurm-nodes", [{"num_nodes": 8}]),
        ({"num_nodes": 2, "num_gpus": 9}, "slurm-gpus", [{"num_gpus": 8}]),
        ({"partition": "large", "account": "chemistry", "num_gpus": 4}, "slurm-nodes", [{"num_nodes": 2}]),
        ({"partition": "cpu", "num_gpus": 4, "num_nodes": 2}, "slurm-gpus", [{"partition": "gpu"}]),
        ({"partition": "slices", "num_gpus": 7}, "slurm-gpus", [{"num_gpus": 6}]),
        ({"partition": "drained", "num_gpus": 4}, "slurm-partition-down", [{"partition": "gpu"}]),
        ({"gres": "gpu:h100:4", "num_gpus": 8}, "slurm-gres", [{"gres": "gpu:h100:8"}, {"num_gpus": 4}]),
        ({"gres": "craynetwork:1", "num_gpus": 8}, "slurm-gres-form", [{"gres": "gpu:8"}]),
        ({"gres": "h100:8", "num_gpus": 8}, "slurm-gres-form", [{"gres": "gpu:h100:8"}]),
        ({"gres": "gpu:H100:8", "num_gpus": 8}, "slurm-gpus", [{"gres": "gpu:h100:8"}]),
        ({"gres": "gpu:a100:8", "num_gpus": 8}, "slurm-gpus", [{"num_gpus": 4, "gres": "gpu:a100:4"}]),
        ({"gres": "gpu:h100:8", "num_nodes": 4}, "slurm-nodes", [{"num_nodes": 2}]),
        ({"time": "11:00:00"}, "slurm-limit", [{"time": "10:00:00"}]),
        ({"qos": "large"}, "slurm-qos", [{"qos": "debug"}]),
        ({"qos": "debug", "time": "1:00:00"}, "slurm-limit", [{"time": "00:30:00"}]),
        ({"account": "chemistry", "num_gpus": 4, "num_nodes": 1}, "slurm-limit", [{"num_nodes": 2}]),
        (
            {"account": "physics", "partition": "large", "num_nodes": 2},
            "slurm-account",
            [{"account": "chemistry"}],
        ),
        ({"account": "fysics"}, "slurm-account", [{"account": "physics"}]),
        ({"partition": "gpus"}, "slurm-partition", [{"partition": "gpu"}]),
        ({"partition": "gpu,nope"}, "slurm-partition", [{"partition": "gpu"}]),
    ],
)
def test_what_the_cluster_cannot_run_is_refused(
    values: dict[str, object], code: str, fixes: list[dict[str, object]]
) -> None:
    found = [fix.changes for fix in finding_of(code, **values).fixes]
    assert found[: len(fixes)] == fixes


def test_one_of_several_partitions_is_enough() -> None:
    assert not {code for code in codes_of(partition="old,gpu", num_nodes=4) if code.startswith("slurm-")}
    assert "slurm-nodes" in codes_of(partition="old,gpu", num_nodes=9)


def test_limits_of_a_single_job_are_the_strictest_of_all() -> None:
    large = ACCOUNTING.quality("large")
    assert large is not None
    assert large.limits == Limits(most_nodes=3, most_gpus=16, least_nodes=2, least_gpus=8)
    assert "slurm-limit" not in codes_of(account="chemistry", num_nodes=2, num_gpus=8, qos="large")
    assert "slurm-limit" in codes_of(account="chemistry", num_nodes=4, num_gpus=4)  # 3 nodes of the group


def test_defaults_follow_the_cluster() -> None:
    found = resolved(job(partition="gpu", num_nodes=4), **FACTS)
    assert found.job.launch.num_gpus == 4  # only two nodes have eight
    assert found.origins["num_gpus"] == "a full node of partition gpu"
    assert resolved(job(partition="gpu", num_nodes=2), **FACTS).job.launch.num_gpus == 8
    assert resolved(job(num_gpus=8), **FACTS).gpu.name == "h100"  # the other nodes have four A100
    assert resolved(job(gres="gpu:a100:2"), **FACTS).job.launch.num_gpus == 2
    limited = resolved(job(partition="slices"), **FACTS)
    assert limited.job.launch.time == "04:00:00"  # MaxWall of QOS brief, which the partition imposes
    assert limited.origins["time"] == "the limit of QOS brief"


def test_defaults_that_the_cluster_lacks_are_named_as_such() -> None:
    found = {f.code: f.message for f in findings(changed=FACTS, account="root", partition="defq")}
    assert (
        "-A root (not given: the default) is not one of your Slurm accounts: physics, chemistry"
        in (found["slurm-account"])
    )
    assert "-P defq (not given: the default)" in found["slurm-partition"]
    assert "which has gpu, large" in found["slurm-partition"]
    unknown = [f for f in findings(account="root", partition="defq") if f.code == "slurm-not-given"]
    assert "-A and -P are not given" in unknown[0].message


def test_a_shell_that_would_change_the_submission_is_named() -> None:
    shell = {"SBATCH_ACCOUNT": "other", "SBATCH_PARTITION": "gpu", "SLURM_MEM_PER_CPU": "4000"}
    found = [f for f in findings(changed={"slurm_variables": shell}) if f.code == "slurm-shell-variables"]
    assert [(f.severity.name, f.fixes[0].changes if f.fixes else None) for f in found] == [
        ("WARNING", {"account": "other"}),
        ("NOTE", None),
    ]
    assert "SBATCH_PARTITION, SLURM_MEM_PER_CPU" in found[1].message


def test_a_job_larger_than_what_is_up_waits() -> None:
    some_down = parse_sinfo("gpu|2-00:00:00|48|gpu:h100:8(S:0-1)|up|30/16/2/48|1-64\n")
    values: dict[str, Any] = {"partition": "gpu", "num_nodes": 47}
    found = findings(changed={"partitions": some_down}, **values)
    (down,) = (f for f in found if f.code == "slurm-nodes-down")
    assert down.fixes[0].changes == {"num_nodes": 46}


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
