"""`nemolaunch generate-config`: `nemolaunch plan --format yaml` under the name other tools give it."""

from __future__ import annotations

import argparse
import sys

from nemolaunch.cli.commands import plan
from nemolaunch.cli.commands.plan import generate_config as main

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    """The flags of `nemolaunch plan`, with YAML as what is printed."""
    return plan.parser("nemolaunch generate-config", "yaml")


if __name__ == "__main__":
    sys.exit(main())
