"""`nemolaunch generate-config`: `nemolaunch plan --format yaml` under the name that other tools use."""

from __future__ import annotations

import argparse
import sys

from nemolaunch.cli.commands import plan
from nemolaunch.cli.commands.plan import generate_config as main

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch plan` with YAML as the default format."""
    return plan.parser("nemolaunch generate-config", "yaml")


if __name__ == "__main__":
    sys.exit(main())
