"""Errors and findings on the terminal."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Protocol

from nemolaunch.cli.views.paint import write_parts
from nemolaunch.cli.views.terminal import EscapingStream, escaping
from nemolaunch.errors import NemolaunchError
from nemolaunch.findings import Finding, by_severity
from nemolaunch.system.installation import extra_with, how_to_install
from nemolaunch.system.secret_values import masked, masked_streams


class Command(Protocol):
    """A command: takes arguments, by default those of this process, and returns an exit code."""

    def __call__(self, argv: list[str] | None = None) -> int:
        """Run the command."""
        ...


def _print_anything() -> None:
    """Escape what the terminal's encoding lacks, such as a file name that is not UTF-8, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def guarded(main: Callable[[list[str] | None], int]) -> Command:
    """Turn a user error into one message on stderr and an exit code, never a traceback.

    Exit codes: the error's own (1 or 2); 130 after Ctrl-C; 141 if the reader of a pipe has exited.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        # torch warns about this on every import if the older of the two packages is installed
        warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
        if isinstance(sys.stdout, EscapingStream):  # one command has called another
            return _ended(main, argv)
        _print_anything()
        with masked_streams(), escaping():
            return _ended(main, argv)

    return run


def _ended(main: Callable[[list[str] | None], int], argv: list[str] | None) -> int:
    """Run a command. Return its exit code, or that of its error."""
    try:
        return main(argv)
    except NemolaunchError as error:
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nemolaunch"):
            raise
        name = (error.name or str(error)).partition(".")[0]
        print_error(f"{name} is not installed for {sys.executable}: {how_to_install(extra_with(name))}")
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {masked(f'{error.strerror or error}{where}')}", file=sys.stderr)
        return 1


def print_error(text: str) -> None:
    """Print an error to stderr, without secrets."""
    first, *rest = masked(text).split("\n")
    write_parts([("error", "error: "), ("", first)], stream=sys.stderr)
    for line in rest:
        write_parts([("", line)], stream=sys.stderr)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print all findings to stderr, most severe first, after flushing stdout."""
    sys.stdout.flush()
    for finding in by_severity(findings):
        head, bracket, text = str(finding).partition("]: ")
        write_parts([(finding.severity.value, head + bracket), ("", text)], stream=sys.stderr)
