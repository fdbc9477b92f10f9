"""`nemolaunch download` and download_example_data/download_wiki.py: Wikipedia as JSON Lines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemolaunch.cli.arguments import HelpFormatter, normalise_long_options
from nemolaunch.cli.render import guarded
from nemolaunch.errors import NemolaunchError

ABOUT = """Download the articles of one Wikipedia as JSON Lines with a "text" field, ready to be tokenised.

The articles come as plain text from the snapshot that Wikimedia publishes on the Hugging Face Hub. An
interrupted download continues where it stopped. HF_TOKEN, HF_ENDPOINT, HF_HOME and HTTPS_PROXY are read from
the environment."""


def parser(prog: str = "nemolaunch download") -> argparse.ArgumentParser:
    """All flags of the download."""
    flags = argparse.ArgumentParser(prog=prog, description=ABOUT, formatter_class=_Formatter)
    add = flags.add_argument
    add("--language", default="zh-classical", metavar="CODE", help="Wikipedia's own code, as in its address")
    add("--output-dir", type=Path, default=Path("example_data"), metavar="DIR", help="folder to write to")
    add("--limit", type=int, metavar="N", help="take only the first N articles")
    add("--url-limit", type=int, metavar="N", help="take only the first N Parquet files")
    add("--snapshot", default="20231101", metavar="DATE", help="date of the snapshot")
    add("--endpoint", metavar="URL", help="a mirror of the Hub (default: HF_ENDPOINT, else the Hub itself)")
    add("--cache-dir", type=Path, metavar="DIR", help="keeps the downloaded files (default: that of the Hub)")
    return flags


class _Formatter(HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description keeps its paragraphs."""


def main(argv: list[str] | None = None, prog: str = "nemolaunch download") -> int:
    """The command under either of its names. Returns the exit code."""
    return guarded(lambda words: _main(words, prog))(argv)


def _main(argv: list[str] | None, prog: str) -> int:
    args = parser(prog).parse_args(normalise_long_options(argv))

    try:
        import orjson  # noqa: F401
        import pyarrow  # noqa: F401
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise NemolaunchError(f"{error.name} is not installed: pip install 'nemolaunch[tokens]'") from None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from nemolaunch.corpora.wikipedia import Wikipedia, download

    console = Console(stderr=True)
    if not console.is_terminal:
        disable_progress_bars()
    wikipedia = Wikipedia(
        language=args.language,
        snapshot=args.snapshot,
        max_files=args.url_limit,
        max_articles=args.limit,
        endpoint=args.endpoint.rstrip("/") if args.endpoint else None,
        cache_dir=args.cache_dir,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("articles", total=args.limit)

        def on_file(name: str, num_articles: int) -> None:
            held = (progress.tasks[bar].total or 0) + num_articles
            progress.update(bar, description=name, total=args.limit or held)

        path, count = download(wikipedia, args.output_dir, on_file, lambda: progress.advance(bar))
    print(f"{path}: {count:,} articles, {path.stat().st_size / 1e6:,.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
