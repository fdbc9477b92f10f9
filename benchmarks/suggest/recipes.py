"""Count for how many of NVIDIA's recipes `nemolaunch suggest` ranks the recipe's own layout among the first.

A recipe counts as found if its tensor, pipeline, context and expert parallel sizes equal those of a
suggestion; the GPU is the H100-80 that the recipes were made for. `GiB` and `slower` describe the recipe's
own layout, micro batch and virtual stages included: its estimated memory, and its step time relative to that
of the first suggestion.

    python benchmarks/suggest/recipes.py [--gpu h100] [--top 5]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from nemolaunch import arithmetic, catalogue
from nemolaunch.estimate import Layout, layout_of_recipe, memory
from nemolaunch.estimate.performance import step_time
from nemolaunch.estimate.suggest import Suggestion, suggestions


@dataclass(frozen=True)
class Outcome:
    """The result of one recipe. `place` is the rank of its own layout, from 1; None if it does not fit."""

    recipe: str
    own: Layout
    place: int | None
    found: int
    slower: float | None
    first: Suggestion | None
    own_gib: float


def own_layout(recipe: catalogue.Recipe) -> Layout:
    """Return the recipe's layout, on more nodes than its default if that is too small."""
    layout = layout_of_recipe(recipe)
    unit = math.lcm(
        layout.tensor * layout.pipeline * layout.context,
        layout.expert * layout.expert_tensor * layout.pipeline,
    )
    each = recipe.num_gpus_per_node
    world = math.ceil(max(layout.world_size, unit) / unit) * unit
    return layout.with_values(world_size=max(world, each) if world % each == 0 else world, gpus_per_node=each)


def outcome(recipe: catalogue.Recipe, gpu: catalogue.Gpu) -> Outcome:
    """Rank layouts for the recipe's model, and find its own among them."""
    model = catalogue.model(recipe.name)
    own = own_layout(recipe)
    rows, _ = arithmetic.model_vocab_rows(model, None, min(8, own.gpus_per_node))
    ranking = suggestions(model.architecture, own, gpu, rows)
    place = next((i for i, s in enumerate(ranking, 1) if sizes(s.layout) == sizes(own)), None)
    seconds = step_time(model.architecture, own, gpu, rows).total
    return Outcome(
        recipe=recipe.name,
        own=own,
        place=place,
        found=len(ranking),
        slower=seconds / ranking[0].time.total - 1 if ranking else None,
        first=ranking[0] if ranking else None,
        own_gib=memory(model.architecture, own, rows).total / 2**30,
    )


def sizes(layout: Layout) -> tuple[int, int, int, int]:
    """Return the parallel sizes by which layouts are compared."""
    return layout.tensor, layout.pipeline, layout.context, layout.expert


def described(found: Suggestion | None) -> str:
    """Return a suggestion as text; `-` for none."""
    if found is None:
        return "-"
    return words(found.layout) + (" recompute" if found.layout.recompute_granularity else "")


def words(layout: Layout) -> str:
    """Return a layout in the form `TP4 PP4 VPP5 CP2 EP1 MBS1`."""
    return (
        f"TP{layout.tensor} PP{layout.pipeline} VPP{layout.virtual} CP{layout.context} EP{layout.expert} "
        f"MBS{layout.micro_batch_size}"
    )


def main() -> None:
    """Print one line per recipe, and the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--top", type=int, default=5)
    asked = parser.parse_args()
    gpu = catalogue.gpu(asked.gpu)
    outcomes = []
    print(f"{'recipe':26} {'GPUs':>5} {'own layout':32} {'GiB':>6} {'place':>9} {'slower':>7}  first")
    for recipe in catalogue.recipes():
        o = outcome(recipe, gpu)
        outcomes.append(o)
        place = f"{o.place or '-'} of {o.found}"
        slower = f"{o.slower:+.0%}" if o.slower is not None else "-"
        own = f"{o.recipe:26} {o.own.world_size:>5} {words(o.own):32} {o.own_gib:>6.1f}"
        print(f"{own} {place:>9} {slower:>7}  {described(o.first)}", flush=True)
    among = sum(1 for o in outcomes if o.place and o.place <= asked.top)
    first = sum(1 for o in outcomes if o.place == 1)
    missing = sum(1 for o in outcomes if not o.place)
    near = sum(1 for o in outcomes if o.slower is not None and o.slower <= 0.10)
    print(
        f"\n{len(outcomes)} recipes: own layout first for {first}, among the first {asked.top} for {among};"
    )
    print(f"step time within 10 % of the first's for {near}; not among the layouts that fit for {missing}")


if __name__ == "__main__":
    main()
