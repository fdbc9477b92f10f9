"""`python -m nemolaunch` is the `nemolaunch` command."""

import sys

from nemolaunch.cli.main import main

sys.exit(main())
