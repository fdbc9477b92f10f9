"""A rich console for texts that others may have written."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from nemolaunch.system.control_characters import escaped


class SafeConsole(Console):
    """A console whose own colours and cursor movements reach the terminal, but no others."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(file=getattr(stream, "plain", stream), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects, with the control characters in texts escaped."""
        super().print(*(escaped(each) if isinstance(each, str) else each for each in objects), **options)
