"""From measurements to the nodes that are slow or sick. The figures are worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nemolaunch.preflight import result
from nemolaunch.preflight.gpus import parse_idle, parse_load, visible
from nemolaunch.preflight.judge import Trouble, judge, unfit
from nemolaunch.preflight.rows import Files, Gpu, Measured, NodeRow, RankRow
from nemolaunch.run.folder import RunDir, unfit_nodes

H100 = "NVIDIA H100 80GB HBM3"


def ranks(*tflops: float, per_node: int = 1, device: str = H100) -> tuple[RankRow, ...]:
    return tuple(
        RankRow(rank=i, node=f"n{i // per_node + 1}", device=device, flops_per_s=each * 1e12)
        for i, each in enumerate(tflops)
    )


def nodes(**rows: dict[str, object]) -> Measured:
    return Measured(nodes=tuple(NodeRow(node=name, **values) for name, values in rows.items()))  # type: ignore[arg-type]


def found(measured: Measured, tolerance: float = 0.15) -> list[tuple[str, str, str]]:
    return [(trouble.node, trouble.level, trouble.code) for trouble in judge(measured, tolerance)]


def test_a_rank_below_the_median() -> None:
    measured = Measured(ranks=ranks(600, 610, 590, 500, 600, 610, 600, 600, per_node=4))
    (trouble,) = judge(measured, 0.15)
    # median 600; 500 is 100 / 600 = 17 % below it
    assert (trouble.node, trouble.level, trouble.code) == ("n1", "slow", "slow-products")
    assert trouble.text == (
        "rank 3 multiplies matrices at 500 TFLOP/s, 17 % below the median of 600 TFLOP/s; 15 % is allowed"
    )
    assert found(measured, 0.17) == []  # 600 · 0.83 = 498
    assert found(measured, 0.16) != []  # 600 · 0.84 = 504


def test_of_two_nodes_the_slower_is_compared_with_the_faster() -> None:
    # with the mean of both as the median, 84 would be 9 % below 92
    assert found(Measured(ranks=ranks(100, 84))) == [("n2", "slow", "slow-products")]
    assert found(Measured(ranks=ranks(86, 100))) == []


def test_only_equal_devices_are_compared() -> None:
    mixed = (*ranks(600, 600, 600), *ranks(250, device="NVIDIA A100-SXM4-80GB"))
    assert found(Measured(ranks=mixed)) == []


def test_ranks_on_the_cpus_of_a_node_are_judged_together() -> None:
    cpu: dict[str, Any] = {"per_node": 2, "device": "cpu"}
    assert found(Measured(ranks=ranks(1.0, 0.5, **cpu))) == []
    # means of 1.5, 0.9 and 1.5: 0.9 is 40 % below
    (trouble,) = judge(Measured(ranks=ranks(1.8, 1.2, 0.9, 0.9, 1.2, 1.8, **cpu)), 0.15)
    assert str(trouble).startswith(
        "n2 multiplies matrices at 900.0 GFLOP/s, 40 % below the median of 1500.0 GFLOP/s"
    )


def test_one_rank_has_nothing_to_be_compared_with() -> None:
    assert found(Measured(ranks=ranks(1))) == []


def test_links() -> None:
    measured = nodes(
        n1={"within_bytes_per_s": 400e9, "between_bytes_per_s": {"n2": 12e9, "n4": 45e9}},
        n2={"within_bytes_per_s": 330e9, "between_bytes_per_s": {"n1": 12e9, "n3": 11e9}},
        n3={"within_bytes_per_s": 400e9, "between_bytes_per_s": {"n2": 11e9, "n4": 46e9}},
        n4={"within_bytes_per_s": 390e9, "between_bytes_per_s": {"n3": 46e9, "n1": 45e9}},
    )
    # n1 and n3 are slow with n2 only; the better neighbour of n2 gives it 12 of 46 GB/s
    assert found(measured) == [("n2", "slow", "slow-links"), ("n2", "slow", "slow-network")]
    texts = [trouble.text for trouble in judge(measured, 0.15)]
    assert "reduces over its own ranks at 330.00 GB/s, 18 % below the median of 400.00 GB/s" in texts[0]
    assert "reduces with other nodes at 12.00 GB/s, 74 % below the median of 46.00 GB/s" in texts[1]


def test_a_slow_link_between_two_nodes_is_nobodys_fault() -> None:
    assert (
        found(nodes(n1={"between_bytes_per_s": {"n2": 1e9}}, n2={"between_bytes_per_s": {"n1": 1e9}})) == []
    )


def files(read: float, write: float | None = None, what: str = "run folder") -> dict[str, object]:
    return {"files": (Files(what=what, path="/runs", read_bytes_per_s=read, write_bytes_per_s=write),)}


def test_file_systems_may_be_half_as_fast() -> None:
    measured = nodes(n1=files(2e9, 1e9), n2=files(2e9, 0.51e9), n3=files(0.9e9, 1e9))
    assert found(measured) == [("n3", "slow", "slow-files")]
    (trouble,) = judge(measured, 0.15)
    assert (
        trouble.text
        == "reads the run folder at 0.90 GB/s, 55 % below the median of 2.00 GB/s; 50 % is allowed"
    )


def test_versions() -> None:
    same = {"torch": "2.9", "megatron-core": "0.16.0"}
    kernel = {"kernel": "6.1"}
    measured = nodes(
        n1={"versions": same, "system": kernel},
        n2={"versions": {**same, "torch": "2.8"}, "system": kernel},
        n3={"versions": same, "system": {"kernel": "6.2"}},
        n4={"versions": {"torch": "2.9"}, "system": kernel},
    )
    assert found(measured) == [
        ("n2", "sick", "versions"),
        ("n4", "sick", "versions"),
        ("n3", "warning", "system-versions"),
    ]
    assert [t.text for t in judge(measured, 0.15)][:2] == [
        "has torch 2.8, and 3 of 4 nodes have 2.9; all must be equal",
        "has megatron-core none, and 3 of 4 nodes have 0.16.0; all must be equal",
    ]
    assert unfit(judge(measured, 0.15)) == ("n2", "n4")  # another kernel ends no run


@pytest.mark.parametrize(("ahead", "named"), [(0.9, []), (1.5, ["n2"]), (-1.5, ["n2"])])
def test_clocks(ahead: float, named: list[str]) -> None:
    measured = nodes(n1={"clock_ahead_s": 0.0}, n2={"clock_ahead_s": ahead}, n3={"clock_ahead_s": 0.01})
    troubles = judge(measured, 0.15)
    assert [trouble.node for trouble in troubles] == named
    assert unfit(troubles) == ()


def test_the_first_node_may_have_the_odd_clock() -> None:
    """Differences are measured from it, and it is not right for that."""
    measured = nodes(n1={"clock_ahead_s": 0.0}, n2={"clock_ahead_s": 5.0}, n3={"clock_ahead_s": 5.1})
    (trouble,) = judge(measured, 0.15)
    assert str(trouble).startswith("n1 has a clock 5.0 s behind the others'")


def gpu(**values: object) -> Gpu:
    return dataclasses.replace(Gpu(index=3, name=H100, clock_mhz=1980, max_clock_mhz=1980), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [
        ({"uncorrected_errors": 2}, "sick", "has 2 uncorrectable memory errors"),
        ({"remap_failed": True}, "sick", "could not remap"),
        ({"remap_pending": True}, "sick", "only remapped once the GPU is reset"),
        (
            {"reasons": 0x8 | 0x40, "clock_mhz": 990},
            "sick",
            "at 990 of 1980 MHz: hardware slowdown, thermal slowdown",
        ),
        ({"reasons": 0x20}, "sick", "thermal slowdown by the driver"),
        ({"reasons": 0x80}, "sick", "power brake"),
        ({"reasons": 0x2, "clock_mhz": 1200}, "warning", "at 1200 of 1980 MHz, which is a setting"),
        ({"memory_used_bytes": 3 * 2**30}, "sick", "has 3.0 GiB of memory in use"),
    ],
)
def test_gpus(values: dict[str, object], level: str, words: str) -> None:
    """Also on one node. The bits are those of nvmlClocksEventReasons in NVML's manual."""
    (trouble,) = judge(nodes(n1={"gpus": (gpu(**values),)}), 0.15)
    assert trouble.level == level
    assert trouble.text.startswith("GPU 3 ")
    assert words in trouble.text


@pytest.mark.parametrize("values", [{"reasons": 0x4}, {"reasons": 0x0}, {"memory_used_bytes": 600 * 2**20}])
def test_a_power_cap_and_the_drivers_own_memory_are_ordinary(values: dict[str, object]) -> None:
    assert judge(nodes(n1={"gpus": (gpu(**values),)}), 0.15) == ()


def test_a_gpu_with_a_lower_clock_than_the_others() -> None:
    measured = nodes(
        n1={"gpus": (gpu(), gpu(index=4))}, n2={"gpus": (gpu(clock_mhz=1500),)}, n3={"gpus": (gpu(),)}
    )
    (trouble,) = judge(measured, 0.15)
    # 480 of 1980 MHz are 24 %
    assert (
        str(trouble)
        == "n2 GPU 3 runs matrix products at 1500 MHz, 24 % below the median of 1980 MHz; 15 % is allowed"
    )


def test_what_could_not_be_measured_makes_a_node_sick() -> None:
    broken = RankRow(
        rank=9, node="n2", errors=("matrix product failed: CUDA error: unspecified launch failure",)
    )
    (trouble,) = judge(Measured(ranks=(broken,)), 0.15)
    assert (trouble.node, trouble.level) == ("n2", "sick")
    assert "rank 9: matrix product failed" in trouble.text


IDLE = """\
0, GPU-6a1, NVIDIA H100 80GB HBM3, 550.54.15, 4, 1980
1, GPU-7b2, NVIDIA H100 80GB HBM3, 550.54.15, 81000, 1980
"""


def test_answers_of_nvidia_smi() -> None:
    idle = parse_idle(IDLE, "0, 0\n1, 7\n", "0, No, No\n1, No, Yes\n")
    assert [(g.index, g.driver, g.uncorrected_errors, g.remap_failed, g.remap_pending) for g in idle] == [
        (0, "550.54.15", 0, False, False),
        (1, "550.54.15", 7, False, True),
    ]
    assert idle[1].memory_used_bytes == 81000 * 2**20
    reasons = "0, 0x0000000000000004\n1, 0x0000000000000048\n"
    loaded = parse_load(idle, "0, 1755\n1, 1200\n", None, reasons)
    assert [(g.clock_mhz, g.max_clock_mhz, g.reasons) for g in loaded] == [
        (1755, 1980, 4),
        (1200, 1980, 0x48),
    ]


@pytest.mark.parametrize(
    ("named", "kept"), [(None, [0, 1]), ("1", [1]), ("1,0", [0, 1]), ("GPU-7b", [1]), ("", []), ("10", [])]
)
def test_gpus_of_others_are_not_looked_at(named: str | None, kept: list[int]) -> None:
    """The forms of CUDA_VISIBLE_DEVICES in the CUDA programming guide."""
    assert [each.index for each in visible(parse_idle(IDLE, None, None), named)] == kept


def test_what_a_gpu_or_driver_does_not_know_is_not_judged() -> None:
    (one,) = parse_load(
        parse_idle("0, GPU-1, Tesla T4, 450.1, [N/A], [N/A]\n", "0, [N/A]\n", None), None, None, None
    )
    assert one == Gpu(index=0, uuid="GPU-1", name="Tesla T4", driver="450.1")
    assert judge(nodes(n1={"gpus": (one,)}), 0.15) == ()
    assert parse_idle(None, None, None) == ()


def test_results_are_kept_and_the_list_of_unfit_nodes_grows(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    row = NodeRow(node="n1", gpus=(gpu(),), versions={"torch": "2.9"}, between_bytes_per_s={"n2": 1.0})
    measured = Measured(ranks=ranks(1, 2), nodes=(row, NodeRow(node="n2")), all_bytes_per_s=2.0)
    slow = Trouble(node="n2", level="slow", code="slow-products", text="rank 1 …")
    result.save(run, result.new("7.0", 0.15, measured, (slow,)))
    loaded = result.load(run)
    assert loaded is not None
    assert loaded.measured == measured
    assert loaded.troubles == (slow,)
    assert loaded.sentence == "n2 rank 1 …"
    assert json.loads(run.preflight_result.read_text())["unfit"] == ["n2"]
    assert run.preflight_unfit.read_text() == "7.0\nn2\n"

    others = Measured(nodes=(NodeRow(node="n1"), NodeRow(node="n3")))
    result.save(run, result.new("8.0", 0.15, others, (dataclasses.replace(slow, node="n3"),)))
    assert unfit_nodes(run) == ("n2", "n3")
    result.save(run, result.new("9.0", 0.15, Measured(nodes=(NodeRow(node="n2"),)), ()))
    assert run.preflight_unfit.read_text() == "-\nn3\n"  # n2 was measured again, and is fit
