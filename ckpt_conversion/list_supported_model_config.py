#!/usr/bin/env python3
"""List the model and config classes that can be converted; the same as `nemolaunch models --conversion`."""

import sys

try:
    from nemolaunch.cli.commands.models import main
except ModuleNotFoundError as error:
    sys.exit(f"{error} in {sys.executable}: activate the environment first (source .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(main(["--conversion", *sys.argv[1:]]))
