"""From measurements to troubles: which nodes are sick or slow, and why. Pure functions.

Where the limits come from:

- A rank or node may be `tolerance` slower than the median of its equals. Healthy GPUs of one model differ by 8 % on
  average ("Not All GPUs Are Created Equal", SC22, arXiv 2208.11035): the default of `--preflight-tolerance`, 15 %, is
  about twice that.
- File systems are shared with other jobs, and their speed varies with what those do: below half of the median is slow.
- Nothing is compared with a peak: those of data sheets are not reached, and by how much depends on the software.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, median_high, median_low
from typing import TypeVar

from nemolaunch.preflight.rows import CPU, Files, Gpu, Measured, NodeRow, RankRow

Key = TypeVar("Key")

FILES_TOLERANCE = 0.5
# Errors of ranks are ordered by the clocks of their nodes, and steps take about that long
CLOCK_LIMIT_S = 1.0
# Drivers keep some hundred MB of an idle GPU to themselves
IDLE_MEMORY_BYTES = 2**30
UNFIT_CODE = 3  # exit code of a preflight that found one
SICK, SLOW, WARNING = "sick", "slow", "warning"

# Bits of NVML's nvmlClocksEventReasons. A power cap (0x4) is ordinary during matrix products.
LIMITED_BY_SETTING = 0x2
SLOWDOWNS = {
    0x8: "hardware slowdown",
    0x20: "thermal slowdown by the driver",
    0x40: "thermal slowdown by the hardware",
    0x80: "power brake by the hardware",
}


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something wrong with a node.

    Attributes:
        level: `sick` or `slow`, which end a run before its first step, or `warning`.
        code: stable identifier.
    """

    node: str
    level: str
    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.node} {self.text}"


def judge(measured: Measured, tolerance: float) -> tuple[Trouble, ...]:
    """Return what is wrong with each node, the gravest first."""
    found = [
        *_errors(measured),
        *(trouble for row in measured.nodes for trouble in _gpus(row)),
        *_versions(measured.nodes),
        *_products(measured.ranks, tolerance),
        *_clocks_of_gpus(measured.nodes, tolerance),
        *_links(measured.nodes, tolerance),
        *_files(measured.nodes, max(tolerance, FILES_TOLERANCE)),
        *_clocks(measured.nodes),
    ]
    return tuple(sorted(found, key=lambda trouble: (SICK, SLOW, WARNING).index(trouble.level)))


def unfit(troubles: Iterable[Trouble]) -> tuple[str, ...]:
    """Return the nodes that a run should not start on."""
    return tuple(dict.fromkeys(trouble.node for trouble in troubles if trouble.level != WARNING))


def _errors(measured: Measured) -> Iterator[Trouble]:
    for node in measured.nodes:
        for text in node.errors:
            yield Trouble(node=node.node, level=SICK, code="not-measured", text=text)
    for row in measured.ranks:
        for text in row.errors:
            yield Trouble(node=row.node, level=SICK, code="not-measured", text=f"rank {row.rank}: {text}")


def _gpus(row: NodeRow) -> Iterator[Trouble]:
    for gpu in row.gpus:
        for level, code, text in _of_gpu(gpu):
            yield Trouble(node=row.node, level=level, code=code, text=f"GPU {gpu.index} {text}")


def _of_gpu(gpu: Gpu) -> Iterator[tuple[str, str, str]]:
    if gpu.uncorrected_errors:
        yield (
            SICK,
            "memory-errors",
            f"has {gpu.uncorrected_errors} uncorrectable memory errors; none is allowed",
        )
    if gpu.remap_failed:
        yield SICK, "memory-rows", "could not remap a faulty row of its memory: it has to be replaced"
    if gpu.remap_pending:
        yield SICK, "memory-rows", "has a faulty row of memory that is only remapped once the GPU is reset"
    clock = f"at {gpu.clock_mhz} of {gpu.max_clock_mhz} MHz"
    if named := [name for bit, name in SLOWDOWNS.items() if (gpu.reasons or 0) & bit]:
        yield SICK, "throttled", f"is throttled during matrix products, {clock}: {', '.join(named)}"
    elif (gpu.reasons or 0) & LIMITED_BY_SETTING:
        yield WARNING, "clock-setting", f"runs matrix products {clock}, which is a setting of its clocks"
    if (gpu.memory_used_bytes or 0) > IDLE_MEMORY_BYTES:
        used = (gpu.memory_used_bytes or 0) / 2**30
        yield (
            SICK,
            "in-use",
            f"has {used:.1f} GiB of memory in use by other processes; at most 1 GiB is idle use",
        )


def _versions(nodes: Iterable[NodeRow]) -> Iterator[Trouble]:
    rows = list(nodes)
    for level, kind in ((SICK, "versions"), (WARNING, "system")):
        tables: list[tuple[str, Mapping[str, str]]] = [
            (row.node, getattr(row, kind)) for row in rows if not row.errors
        ]
        for name in dict.fromkeys(name for _, table in tables for name in table):
            usual, count = Counter(table.get(name, "none") for _, table in tables).most_common(1)[0]
            for node, table in tables:
                if (own := table.get(name, "none")) != usual:
                    text = f"has {name} {own}, and {count} of {len(tables)} nodes have {usual}; all must be equal"
                    code = "versions" if level == SICK else "system-versions"
                    yield Trouble(node=node, level=level, code=code, text=text)


def _products(ranks: Iterable[RankRow], tolerance: float) -> Iterator[Trouble]:
    """Compare ranks on equal GPUs, and nodes of CPUs: ranks there share cores, so that they differ anyway."""
    groups: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in ranks:
        if row.flops_per_s is not None:
            who = "" if row.device == CPU else f"rank {row.rank} "
            groups[row.device][row.node, who].append(row.flops_per_s)
    for rows in groups.values():
        speeds = {key: fmean(each) for key, each in rows.items()}
        for (node, who), below, usual in _slow(speeds, tolerance):
            how = _below(below, _flops(usual), tolerance)
            text = f"{who}multiplies matrices at {_flops(speeds[node, who])}, {how}"
            yield Trouble(node=node, level=SLOW, code="slow-products", text=text)


def _clocks_of_gpus(nodes: Iterable[NodeRow], tolerance: float) -> Iterator[Trouble]:
    groups: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for row in nodes:
        for gpu in row.gpus:
            if gpu.clock_mhz is not None:
                groups[gpu.name][row.node, gpu.index] = float(gpu.clock_mhz)
    for clocks in groups.values():
        for (node, index), below, usual in _slow(clocks, tolerance):
            text = (
                f"GPU {index} runs matrix products at {clocks[node, index]:.0f} MHz, "
                f"{_below(below, f'{usual:.0f} MHz', tolerance)}"
            )
            yield Trouble(node=node, level=SLOW, code="low-clock", text=text)


def _links(nodes: Iterable[NodeRow], tolerance: float) -> Iterator[Trouble]:
    """Compare the bandwidth within nodes, and of each node with the better of its two neighbours.

    A pair is as slow as the slower of its nodes. A node is slow if it is so with both neighbours; of only two nodes,
    nothing says which one it is.
    """
    rows = list(nodes)
    within = {row.node: row.within_bytes_per_s for row in rows if row.within_bytes_per_s is not None}
    between = {
        row.node: max(row.between_bytes_per_s.values()) for row in rows if len(row.between_bytes_per_s) > 1
    }
    for code, what, speeds in (
        ("slow-links", "reduces over its own ranks", within),
        ("slow-network", "reduces with other nodes", between),
    ):
        for node, below, usual in _slow(speeds, tolerance):
            text = f"{what} at {_bytes(speeds[node])}, {_below(below, _bytes(usual), tolerance)}"
            yield Trouble(node=node, level=SLOW, code=code, text=text)


def _files(nodes: Iterable[NodeRow], tolerance: float) -> Iterator[Trouble]:
    tables: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in nodes:
        for files in row.files:
            for verb, speed in _speeds(files):
                if speed is not None:
                    tables[verb, files.what][row.node] = speed
    for (verb, what), speeds in tables.items():
        for node, below, usual in _slow(speeds, tolerance):
            text = f"{verb} the {what} at {_bytes(speeds[node])}, {_below(below, _bytes(usual), tolerance)}"
            yield Trouble(node=node, level=SLOW, code="slow-files", text=text)


def _speeds(files: Files) -> Iterator[tuple[str, float | None]]:
    yield "reads", files.read_bytes_per_s
    yield "writes", files.write_bytes_per_s


def _clocks(nodes: Iterable[NodeRow]) -> Iterator[Trouble]:
    ahead = {row.node: row.clock_ahead_s for row in nodes if row.clock_ahead_s is not None}
    if not ahead:
        return
    usual = median_low(ahead.values())
    for node, seconds in ahead.items():
        if abs(seconds - usual) > CLOCK_LIMIT_S:
            side = "ahead of" if seconds > usual else "behind"
            text = (
                f"has a clock {abs(seconds - usual):.1f} s {side} the others', and at most {CLOCK_LIMIT_S:g} s keeps "
                "the errors of ranks in order"
            )
            yield Trouble(node=node, level=WARNING, code="clock", text=text)


def _slow(speeds: Mapping[Key, float], tolerance: float) -> Iterator[tuple[Key, float, float]]:
    """Yield what is more than `tolerance` below the median, how far, and the median.

    Of an even number, the faster of the two in the middle: the slower of two nodes is compared with the faster.
    """
    if len(speeds) < 2:
        return
    usual = median_high(speeds.values())
    for key, speed in speeds.items():
        if speed < usual * (1 - tolerance):
            yield key, 1 - speed / usual, usual


def _below(below: float, usual: str, tolerance: float) -> str:
    return f"{100 * below:.0f} % below the median of {usual}; {100 * tolerance:.0f} % is allowed"


def _flops(speed: float) -> str:
    return f"{speed / 1e12:.0f} TFLOP/s" if speed >= 1e13 else f"{speed / 1e9:.1f} GFLOP/s"


def _bytes(speed: float) -> str:
    return f"{speed / 1e9:.2f} GB/s"
