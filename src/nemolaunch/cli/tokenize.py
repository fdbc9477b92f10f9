"""`nemolaunch tokenize` and `preprocess_data.sh`: text files to Megatron `.bin/.idx`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nemolaunch.cli.arguments import HelpFormatter, normalise_long_options
from nemolaunch.cli.render import guarded


def parser() -> argparse.ArgumentParser:
    """Flags of the command."""
    p = argparse.ArgumentParser(
        prog="nemolaunch tokenize",
        description="Turn text files into OUT/preprocessed/NAME_text_document.bin and .idx, byte for byte as"
        " Megatron-LM's preprocess_data.py --append-eod does. A killed run goes on where it was.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--hf-tokenizer",
        "--ht-tokenizer",
        required=True,
        metavar="DIR",
        help="tokenizer: folder or Hugging Face id",
    )
    p.add_argument("--data-prefix", required=True, metavar="NAME", help="first part of the output's name")
    p.add_argument(
        "--input-dir", "--input", required=True, nargs="+", metavar="PATH",
        help="folders, files or globs: .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt",
    )  # fmt: skip
    p.add_argument("--output-dir", required=True, metavar="DIR", help="preprocessed/ is made in it")
    p.add_argument(
        "--json-keys", nargs="+", default=["text"], metavar="KEY", help="columns; each gets its own output"
    )
    p.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: all cores this process may use)"
    )
    p.add_argument(
        "--engine", default="auto", choices=("auto", "hf", "fastokens", "gigatoken"), help="tokenizer library"
    )
    p.add_argument(
        "--on-error", default="stop", choices=("stop", "skip"), help="at a record that is no document"
    )
    p.add_argument("--overwrite", action="store_true", help="replace outputs of that name")
    p.add_argument(
        "--restart", action="store_true", help="throw an unfinished run away instead of going on with it"
    )
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Tokenise. Returns the exit code."""
    options = parser().parse_args(normalise_long_options(argv))
    from nemolaunch.tokens import sources
    from nemolaunch.tokens.run import Request, run
    from nemolaunch.tokens.tokenizer import resolve

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemolaunch"
    files = sources.find(options.input_dir)
    spec = resolve(options.hf_tokenizer, cache)
    keys = tuple(options.json_keys)
    request = Request(
        sources=files,
        spec=spec,
        folder=Path(options.output_dir) / "preprocessed",
        name=options.data_prefix,
        keys=keys,
        columns=tuple(keys for _ in files),
        engine="hf" if options.engine == "auto" else options.engine,
        workers=options.workers or len(os.sched_getaffinity(0)),
        on_error=options.on_error,
        overwrite=options.overwrite,
        restart=options.restart,
    )
    result = run(request)
    for prefix, made in zip(result.prefixes, result.manifests, strict=True):
        print(
            f"{prefix}.bin: {made['documents']:,} documents, {made['tokens']:,} tokens ({made['dtype']})"
            + (", was already there" if result.already_there else "")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
