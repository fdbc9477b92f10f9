"""`--ssh HOST`: a command about a run on a cluster that this machine reaches with ssh."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemolaunch.launching.ssh_host import SshHost

HELP = "reach the cluster's login node with ssh; paths are then those there, from the home folder"


def add_ssh_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that name the login node and its Python."""
    parser.add_argument("--ssh", metavar="[USER@]HOST", help=HELP)
    parser.add_argument(
        "--ssh-python",
        default="python3",
        metavar="PATH",
        help="Python 3.10 or newer there (default: python3)",
    )


@contextlib.contextmanager
def host_of(args: argparse.Namespace) -> Iterator[SshHost]:
    """The connection that `--ssh` asks for."""
    from nemolaunch.launching.ssh_host import SshHost

    with SshHost(args.ssh, args.ssh_python) as host:
        yield host


def elsewhere(args: argparse.Namespace, command: str, argv: Sequence[str] | None) -> int:
    """Run the same command there, with this terminal as its own. Returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--ssh", "--ssh-python"):
            skip = True
        elif not word.startswith(("--ssh=", "--ssh-python=")):
            kept.append(word)
    with host_of(args) as host:
        return host.passed_through("nemolaunch.cli.main", command, *kept)
