"""The argparse parser of every command, and its help."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

from nemolaunch.cli.parsing.short_help import HelpAll, is_common

MANY_OPTIONS = 12  # with more, the usage line says `[options]`
WIDEST = 110
TAKES_WORDS = ("dataset_dir", "profile_ranks", "env_preset")  # would take in what follows their own values
# Flags that other launchers have, and what does the same here
ELSEWHERE = {
    "--print-config": "`nemolaunch generate-config` with the same flags prints the job as YAML",
    "--cfg": "`nemolaunch generate-config` with the same flags prints the job as YAML",
}


def normalise_long_options(argv: list[str] | None) -> list[str]:
    """Rewrite `--long_name` as `--long-name`; `None` means the arguments of this process.

    Values, including those after `=`, and everything after a bare `--` stay as they are.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for i, argument in enumerate(argv):
        if argument == "--":
            break
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argv[i] = name.replace("_", "-") + equals + value
    return argv


def whole_number(text: str) -> int:
    """Return the value of a flag that takes a whole number of 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help as wide as the terminal, up to 110 columns, that shows each default."""

    def __init__(self, prog: str) -> None:
        width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
        super().__init__(prog, max_help_position=min(36, width // 3), width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Return the short and the long name, without aliases and the `--no-` forms of switches."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [name for name in action.option_strings if not name.startswith("--")][:1]
        long = [name for name in action.option_strings if name.startswith("--")][:1]
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return ", ".join(short + long) + value

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        """Name only the required flags if there are many."""
        optional = [action for action in actions if action.option_strings]
        if usage is None and len(optional) > MANY_OPTIONS:
            words = [self._format_action_invocation(a) for a in optional if a.required]
            words += [self._format_args(a, a.dest) for a in actions if not a.option_strings]
            usage = " ".join(["%(prog)s", *words, "[options]"])
        return super()._format_usage(usage, actions, groups, prefix)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = "(default" in (action.help or "")
        if said or action.default is None or action.default is False or action.default == []:
            return action.help
        if isinstance(action.default, list | tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default)).replace('%', '%%')})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep an example as it is typed."""
        return text if text.startswith("example") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser whose help shows an example, and whose errors are one line that suggests the nearest flags.

    It raises UsageError instead of exiting. With `takes_flags_anywhere`, flags may stand between the words of a list.
    """

    def __init__(self, *, example: str = "", **options: Any) -> None:
        self.examples = [line for line in example.splitlines() if line]
        if self.examples:
            heading = "example:" if len(self.examples) == 1 else "examples:"
            options["epilog"] = "\n  ".join([heading, *self.examples])
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **options})
        self.has_short_help = False
        self.takes_flags_anywhere = False

    def add_short_help(self) -> None:
        """Have `--help` show only the flags that most people need, and add `--help-all`."""
        self.has_short_help = True
        self.add_argument("--help-all", action=HelpAll, help="show all flags and exit")

    def format_help(self) -> str:
        """Return the help: with only the common flags if there are very many."""
        if not self.has_short_help:
            return super().format_help()
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            if shown := [action for action in group._group_actions if is_common(action)]:
                formatter.start_section(group.title)
                formatter.add_arguments(shown)
                formatter.end_section()
        more = sum(not is_common(action) for action in self._actions)
        formatter.add_text(f"{more} more flags: `{self.prog} --help-all` shows them.")
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def print_help_all(self) -> None:
        """Print the help with all flags."""
        self.has_short_help = False
        self.print_help()
        self.has_short_help = True

    def error(self, message: str) -> Any:
        """Raise UsageError with the message and a hint at `--help`."""
        from nemolaunch.errors import UsageError

        if message.startswith("the following arguments are required"):
            for action in self._actions:  # argparse lists the aliases
                if long := [name for name in action.option_strings if name.startswith("--")]:
                    message = message.replace("/".join(action.option_strings), long[0])
        stop = "" if message.endswith("?") else "."
        word = "--help-all" if self.has_short_help else "--help"
        raise UsageError(f"{message}{stop} `{self.prog} {word}` lists all flags")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but accept `--long_name` for `--long-name` and suggest flags."""
        parse = self.parse_known_intermixed_args if self.takes_flags_anywhere else self.parse_known_args
        parsed, unknown = parse(normalise_long_options(args), namespace)
        if unknown:
            self._refuse_settings(unknown)
            if any("://" in word for word in unknown) and any(a.dest == "notify" for a in self._actions):
                self.error("--notify takes no URL: it is a secret, and read from NEMOLAUNCH_WEBHOOK_URL")
            flags = [word for word in unknown if word.startswith("-")] or unknown
            if flags[0] in ELSEWHERE:
                self.error(f"unknown: {flags[0]}; {ELSEWHERE[flags[0]]}")
            near = self._near(flags[0].split("=")[0])
            hint = f" (near: {', '.join(near)})" if near else ""
            self.error(f"unknown: {' '.join(flags)}{hint}")
        self._refuse_settings([word for name in TAKES_WORDS for word in getattr(parsed, name, None) or ()])
        return parsed

    def _refuse_settings(self, words: list[str]) -> None:
        """Raise UsageError for `max_steps=10` and the like in the place of a flag of a job."""
        if any(action.dest == "set" for action in self._actions):
            from nemolaunch.cli.parsing.bare_words import advice

            instead = advice(words)
            if instead:
                self.error(instead)

    def _near(self, flag: str) -> list[str]:
        """Return similar flags, or else those whose help contains the words of this one."""
        import difflib

        groups = [a.choices.values() for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        parsers = [self, *(sub for group in groups for sub in group)]
        actions = [action for parser in parsers for action in parser._actions if action.option_strings]
        known = list(dict.fromkeys(name for action in actions for name in action.option_strings))
        alike = difflib.get_close_matches(flag, known, n=3, cutoff=0.7)
        words = flag.strip("-").replace("-", " ").replace("_", " ").lower()
        said = [a.option_strings[0] for a in actions if len(words) > 3 and words in (a.help or "").lower()]
        return alike or list(dict.fromkeys(said))[:3]
