"""The flags that `--help` shows where there are too many for a screen; `--help-all` shows all."""

from __future__ import annotations

import argparse
from typing import Any

# The fields of a job that most jobs set, or that a first job asks for
JOB = frozenset({
    "executor", "experiment", "num_nodes", "num_gpus", "account", "partition", "time",
    "model_name", "hf_model_id", "nemo_model",
    "dataset_dir", "seq_length", "validation_data",
    "max_steps", "max_tokens", "global_batch_size", "micro_batch_size", "precision",
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size",
    "lr", "warmup_steps", "set",
    "val_check_interval", "wandb", "checkpoint_every", "keep_latest", "resume",
})  # fmt: skip
# The flags of the commands themselves that go with them
COMMAND = frozenset({"help", "help_all", "config", "plan", "dry_run", "dev_run", "format", "output"})


class HelpAll(argparse.Action):
    """`--help-all`: print the help with all flags, and exit."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(
            option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **options
        )

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print and exit."""
        parser.print_help_all()
        parser.exit()


def is_common(action: argparse.Action) -> bool:
    """Return whether the short help shows a flag."""
    return not action.option_strings or isinstance(action, HelpAll) or action.dest in JOB | COMMAND
