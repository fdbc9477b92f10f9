"""How far the step times that `nemolaunch suggest` ranks by are from published runs, layout by layout.

python benchmarks/suggest/published.py
"""

from __future__ import annotations

import math
import statistics

from nemolaunch import arithmetic, catalogue
from nemolaunch.estimate.performance import step_time
from nemolaunch.estimate.published import Measurement, measurements


def ratio(m: Measurement) -> float:
    """Estimated over published tokens/s."""
    model = catalogue.model(m.model)
    rows, _ = arithmetic.model_vocab_rows(model, None, m.layout.tensor)
    seconds = step_time(model.architecture, m.layout, catalogue.gpu(m.gpu), rows).total
    return m.layout.global_batch_size * m.layout.seq_length / seconds / m.layout.world_size / m.tokens_per_s


def main() -> None:
    """Print one line a run and the median error."""
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


if __name__ == "__main__":
    main()
