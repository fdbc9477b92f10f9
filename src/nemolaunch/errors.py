"""Exceptions whose message is written for the user."""

from __future__ import annotations


class NemolaunchError(Exception):
    """An error the user can fix. The command line prints it without a traceback and exits with `exit_code`.

    The message states what is wrong, the values, the rule, and the flag to change.
    """

    exit_code = 1


class UsageError(NemolaunchError):
    """An invalid flag, configuration file or job description."""

    exit_code = 2
