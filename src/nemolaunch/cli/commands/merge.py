"""`nemolaunch merge`: several .bin/.idx pairs into one, or into a blend."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    p = Parser(
        prog="nemolaunch merge",
        example="nemolaunch merge data/en_text_document data/zh_text_document --output data/both",
        description="Merge .bin/.idx pairs, in the given order, into one. Dtypes and tokenizers are compared"
        " before anything is written, and totals afterwards.",
    )
    add = p.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="PREFIX",
        help="prefixes, globs of prefixes, .idx files or folders of pairs",
    )
    add(
        "--output",
        "-o",
        "--output-prefix",
        dest="output_prefix",
        required=True,
        metavar="PREFIX",
        help="the merged pair, or the blend's .yaml",
    )
    add(
        "--as-blend",
        action="store_true",
        help="merge nothing: write a YAML file that blends the inputs by their tokens",
    )
    add("--json", action="store_true", help="print the totals as JSON")
    add("--overwrite", action="store_true", help="replace an existing output")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    options = parser().parse_args(argv)
    from nemolaunch.cli.views.progress import byte_bar
    from nemolaunch.tokenization.manifest import bin_of
    from nemolaunch.tokenization.merge import expand, merge, write_blend

    inputs = expand(options.inputs)
    output = Path(options.output_prefix).expanduser()
    if options.as_blend:
        path = write_blend(inputs, output, overwrite=options.overwrite)
        print(f"{path}: a blend of {len(inputs)} data sets; train on it with --dataset-dir {path}")
        return 0
    with byte_bar("merge", sum(bin_of(prefix).stat().st_size for prefix in inputs)) as advance:
        merged = merge(inputs, output, overwrite=options.overwrite, report=advance)
    if options.json:
        print(
            json.dumps({**asdict(merged), "prefix": str(merged.prefix), "inputs": [str(p) for p in inputs]})
        )
        return 0
    print(
        f"{output}.bin: {merged.documents:,} documents, {merged.tokens:,} tokens from {len(inputs)} data sets"
    )
    return 0
