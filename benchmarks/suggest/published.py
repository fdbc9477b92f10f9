"""Compare the step times by which `nemolaunch suggest` ranks layouts with those of published runs.

    python benchmarks/suggest/published.py [--top 5]

Then count how many of the published layouts, which their authors tuned, are among the first that `suggest`
proposes for that model on those GPUs. Includes runs on at least one full node without fully sharded data
parallelism.
"""

from __future__ import annotations

import argparse
import math
import statistics

from nemolaunch import arithmetic, catalogue
from nemolaunch.estimate import Layout
from nemolaunch.estimate.performance import step_time
from nemolaunch.estimate.published import Measurement, measurements
from nemolaunch.estimate.suggest import suggestions


def ratio(m: Measurement) -> float:
    """Return estimated over published tokens/s."""
    model = catalogue.model(m.model)
    rows, _ = arithmetic.model_vocab_rows(model, None, m.layout.tensor)
    seconds = step_time(model.architecture, m.layout, catalogue.gpu(m.gpu), rows).total
    return m.layout.global_batch_size * m.layout.seq_length / seconds / m.layout.world_size / m.tokens_per_s


def place(m: Measurement) -> int | None:
    """Return the rank of a run's parallel sizes, from 1; None if they are not among the layouts that fit."""
    model = catalogue.model(m.model)
    rows, _ = arithmetic.model_vocab_rows(model, None, 8)
    ranking = suggestions(model.architecture, m.layout, catalogue.gpu(m.gpu), rows)
    return next((n for n, s in enumerate(ranking, 1) if sizes(s.layout) == sizes(m.layout)), None)


def sizes(layout: Layout) -> tuple[int, int, int, int]:
    """Return the parallel sizes by which layouts are compared."""
    return layout.tensor, layout.pipeline, layout.context, layout.expert


def show_places(top: int) -> None:
    """Print how many published layouts are ranked first, and among the first `top`."""
    tuned = {(m.model, m.gpu, m.precision, m.layout): m for m in measurements()}
    places = [place(m) for m in tuned.values() if m.layout.world_size >= 8 and not m.layout.fsdp_shard]
    among = sum(1 for p in places if p and p <= top)
    print(
        f"{len(places)} tuned layouts: first {places.count(1)}, among the first {top} {among}, "
        f"not among the layouts that fit {places.count(None)}"
    )


def main() -> None:
    """Print one line per run, the median error, and how the layouts rank."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--top", type=int, default=5)
    given = options.parse_args()
    print(
        f"{'model':18} {'GPU':8} {'':5} {'layout':38} {'published':>9} {'estimate':>9} {'ratio':>6}  source"
    )
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for m in measurements():
        p, r = m.layout, ratio(m)
        ratios[catalogue.model(m.model).architecture.num_moe_experts is not None].append(r)
        layout = (
            f"{p.world_size} GPUs TP{p.tensor} PP{p.pipeline} VPP{p.virtual} CP{p.context} EP{p.expert} "
            f"MBS{p.micro_batch_size}"
        )
        print(
            f"{m.model:18} {m.gpu:8} {m.precision:5} {layout:38} {m.tokens_per_s:>9,.0f} "
            f"{m.tokens_per_s * r:>9,.0f} {r:>6.2f}  {m.source}"
        )
    for moe, values in ratios.items():
        error = math.exp(statistics.median(abs(math.log(r)) for r in values)) - 1
        kind = "mixtures of experts" if moe else "dense models"
        ends = f"from {min(values):.2f} to {max(values):.2f}"
        print(f"{len(values)} runs of {kind}: median error {error:.0%}, {ends}")
    show_places(given.top)


if __name__ == "__main__":
    main()
