"""`--show-script` and `--verbose`: how much is printed with the plan."""

from __future__ import annotations

import argparse


def add_show_script_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--show-script`."""
    parser.add_argument(
        "--show-script",
        action="store_true",
        help="also print the batch script that would be submitted to Slurm, above the plan",
    )


def add_verbose_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--verbose`."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="with the plan, also print environment variables, mounts and patches of the training processes",
    )
