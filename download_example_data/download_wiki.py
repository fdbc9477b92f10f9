#!/usr/bin/env python3
"""Download a Wikipedia as JSON Lines. Equivalent to `nemolaunch download wiki`."""

import sys

try:
    from nemolaunch.cli.commands.download_wiki import main
except ModuleNotFoundError as error:
    sys.exit(f"{error} in {sys.executable}: activate the environment first (source .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(main())
