"""Approximations, each with its known error: memory, time, disk; and advice on layouts.

Pure functions of a resolved job and a GPU's data sheet. What rules forbid is `check`'s matter: here a job
that breaks them is estimated as near as can be.
"""

from nemolaunch.estimate.estimate import Estimate, Speed, estimate, estimate_layout
from nemolaunch.estimate.layout import Layout, layout_of, layout_of_job, layout_of_recipe
from nemolaunch.estimate.memory import Memory, memory

__all__ = [
    "Estimate", "Layout", "Memory", "Speed", "estimate", "estimate_layout", "layout_of", "layout_of_job",
    "layout_of_recipe",
    "memory",
]  # fmt: skip
