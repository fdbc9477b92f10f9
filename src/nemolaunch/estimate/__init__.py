"""Estimates of memory, time and disk, each with its known error, and suggestions of layouts.

Pure functions of a resolved job and a GPU's data sheet. Rules are the business of `check`: a job that breaks them is
still estimated, as well as possible.
"""

from nemolaunch.estimate.estimate import Estimate, SpeedAssumption, estimate, estimate_layout
from nemolaunch.estimate.layout import Layout, layout_of, layout_of_job, layout_of_recipe
from nemolaunch.estimate.memory import MemoryEstimate, memory

__all__ = [
    "Estimate", "Layout", "MemoryEstimate", "SpeedAssumption", "estimate", "estimate_layout", "layout_of",
    "layout_of_job", "layout_of_recipe", "memory",
]  # fmt: skip
