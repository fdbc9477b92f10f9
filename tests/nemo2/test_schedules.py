"""The learning rate of every step is that of Megatron's scheduler, and for the cosine that of NeMo's."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from nemo.core.optim.lr_scheduler import CosineAnnealing

from nemolaunch.arithmetic.schedule import WSD_DECAY_STYLES, Schedule

LR, MIN_LR = 3e-4, 2e-5
MEGATRON_STYLES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "inverse-sqrt": "inverse-square-root",
}
CASES = [
    *((style, name, "linear") for style, name in MEGATRON_STYLES.items()),
    *(("wsd", "WSD", way) for way in WSD_DECAY_STYLES),
]


def schedule(**changes: object) -> Schedule:
    """Return a cosine of 40 steps with a warmup of 7, with changes."""
    usual = Schedule(style="cosine", lr=LR, min_lr=MIN_LR, warmup_steps=7, decay_steps=40, wsd_decay_steps=12)
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def optimizer() -> torch.optim.Optimizer:
    """Return an optimizer of one weight."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(("style", "name", "way"), CASES)
def test_rates_are_megatrons(style: str, name: str, way: str, warmup: int) -> None:
    """Step by step, 10 steps beyond the end, for each kind of decay."""
    ours = schedule(style=style, warmup_steps=warmup, wsd_decay_style=way)
    theirs = OptimizerParamScheduler(
        optimizer(),
        init_lr=LR / (warmup + 1) if warmup else LR,
        max_lr=LR,
        min_lr=MIN_LR,
        lr_warmup_steps=warmup,
        lr_decay_steps=40,
        lr_decay_style=name,
        start_wd=0.0,
        end_wd=0.0,
        wd_incr_steps=50,
        wd_incr_style="constant",
        wsd_decay_steps=12,
        lr_wsd_decay_style=way.replace("-", "_"),
    )
    for step in range(50):
        assert ours.rate(step) == pytest.approx(theirs.get_lr({}), rel=1e-12, abs=1e-18), step
        theirs.step(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_cosine_is_nemos_bit_for_bit(warmup: int) -> None:
    """A run of a NeMo recipe has exactly the rates it always had."""
    ours, updated = schedule(warmup_steps=warmup), optimizer()
    theirs = CosineAnnealing(updated, max_steps=40, warmup_steps=warmup, constant_steps=0, min_lr=MIN_LR)
    for step in range(45):
        assert ours.rate(step) == updated.param_groups[0]["lr"], step
        updated.step()
        theirs.step()
