"""`nemolaunch generate-config`: `nemolaunch plan --format yaml` under the name other tools give it."""

from __future__ import annotations

import sys

from nemolaunch.cli.plan import generate_config as main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
