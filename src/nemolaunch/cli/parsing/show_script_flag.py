"""`--show-script`: the batch script above the plan."""

from __future__ import annotations

import argparse


def add_show_script_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--show-script`."""
    parser.add_argument(
        "--show-script",
        action="store_true",
        help="also print the batch script that would be submitted to Slurm, above the plan",
    )
