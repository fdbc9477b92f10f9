"""`nemolaunch tag RUN TAG …`: tags and notes of a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.observe.status import run_of
from nemolaunch.run.labels import Labels, label


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch tag`."""
    p = run_parser(
        "nemolaunch tag",
        example="nemolaunch tag runs/pretraining baseline paper --note 'before the tokenizer was fixed'\n"
        "nemolaunch tag runs/pretraining --remove paper",
        description="Give a run tags and notes, or show those it has. `nemolaunch status` lists tags and finds runs by "
        "them, and the report shows both.",
    )
    p.takes_flags_anywhere = True
    p.add_argument(
        "tags", nargs="*", default=[], metavar="TAG", help="tags to add, without spaces and commas"
    )
    p.add_argument(
        "--remove", action="append", default=[], metavar="TAG", help="tag to remove; may be repeated"
    )
    p.add_argument("--note", default="", metavar="TEXT", help="a remark to add, with the current time")
    p.add_argument("--json", action="store_true", help="print tags and notes as JSON")
    return p


def _tag(args: argparse.Namespace) -> int:
    now = label(run_of(args.run), add=args.tags, remove=args.remove, note=args.note)
    print(json.dumps(dataclasses.asdict(now), ensure_ascii=False) if args.json else "\n".join(_lines(now)))
    return 0


def _lines(labels: Labels) -> list[str]:
    lines = [f"{'tags':<13}{', '.join(labels.tags) or 'none'}"]
    for number, note in enumerate(labels.notes):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(note.time))
        lines.append(f"{'' if number else 'notes':<13}{when}  {note.text}")
    return lines


main = run_command(parser, _tag)
