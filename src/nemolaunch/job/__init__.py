"""The job a user describes: its parts, its fields, and the environment presets it can name."""

from nemolaunch.job.job import (
    ALTERNATIVES,
    PARTS,
    SECRETS,
    Batch,
    Checkpoint,
    Data,
    Job,
    Launch,
    Logging,
    Memory,
    Model,
    Objective,
    Optimizer,
    Parallelism,
    Recipe,
    Speed,
    Stream,
    checked_values,
    current_names,
    field_name,
    spec_of,
    specs,
)  # fmt: skip

__all__ = [
    "ALTERNATIVES", "PARTS", "SECRETS", "Batch", "Checkpoint", "Data", "Job", "Launch", "Logging", "Memory", "Model",
    "Objective", "Optimizer", "Parallelism", "Recipe", "Speed", "Stream", "checked_values", "current_names",
    "field_name", "spec_of", "specs",
]  # fmt: skip
