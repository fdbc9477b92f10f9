"""`--ssh HOST`: a command about a run on a cluster reached over SSH."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemolaunch.launching.ssh_host import SshHost

HELP = "login node of a cluster to reach over SSH; paths are then on the cluster, relative to the home folder"


def add_ssh_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the login node and its Python."""
    parser.add_argument("--ssh", metavar="[USER@]HOST", help=HELP)
    parser.add_argument(
        "--ssh-python",
        default="python3",
        metavar="PATH",
        help="Python 3.10 or newer on the login node (default: python3)",
    )


@contextlib.contextmanager
def host_of(args: argparse.Namespace) -> Iterator[SshHost]:
    """Open the connection given by `--ssh`."""
    from nemolaunch.launching.ssh_host import SshHost

    with SshHost(args.ssh, args.ssh_python) as host:
        yield host


def elsewhere(args: argparse.Namespace, command: str, argv: Sequence[str] | None) -> int:
    """Run the same command on the login node, attached to this terminal. Return its exit code."""
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
