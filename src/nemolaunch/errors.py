"""Exceptions whose message is meant for the user."""

from __future__ import annotations


class NemolaunchError(Exception):
    """Something the user can mend. The command line prints it without a traceback and exits with `exit_code`.

    The message says what is wrong, the values, the rule, and the flag to change.
    """

    exit_code = 1


class UsageError(NemolaunchError):
    """A flag, a configuration file or a job description that cannot be used."""

    exit_code = 2
