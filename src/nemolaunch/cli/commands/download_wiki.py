"""`nemolaunch download wiki` and download_example_data/download_wiki.py: a Wikipedia as JSON Lines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.progress import Bar
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.installation import how_to_install

ABOUT = (
    'Download a Wikipedia and write its articles as JSON Lines with a "text" field, ready to be tokenised. The'
    " source is the dump that Wikimedia publishes, verified by its checksum file; the text is under CC BY-SA."
    " Redirects, empty pages, tables and references are dropped. To resume an interrupted download, run the same"
    " command again."
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of download_wiki.py, whose flags are those of `nemolaunch download wiki`."""
    p = Parser(prog="download_wiki.py", description=ABOUT)
    add_flags(p)
    return p


def add_flags(p: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    add = p.add_argument
    add(
        "--language",
        default="zh-classical",
        metavar="CODE",
        help="language code of the Wikipedia, as in its URL",
    )
    add("--date", default="latest", metavar="DATE", help="date of the dump, e.g. 20261101, or latest")
    add(
        "--output-dir",
        "--output",
        "-o",
        type=Path,
        default=Path("example_data"),
        metavar="DIR",
        help="folder to write to",
    )
    add(
        "--limit",
        type=int,
        metavar="N",
        help="convert only the first N articles, and download no more than needed",
    )
    add("--workers", type=int, metavar="N", help="processes (default: all available cores)")
    add("--mirror", default="https://dumps.wikimedia.org", metavar="URL", help="server with the dumps")
    add(
        "--contact",
        metavar="TEXT",
        help="contact address to send to the server, as Wikimedia asks of heavy users",
    )
    add(
        "--on-error",
        default="stop",
        choices=("stop", "skip"),
        help="what to do at a damaged part of the dump",
    )
    add("--keep-dump", action="store_true", help="keep the downloaded dump beside the text")
    add("--overwrite", action="store_true", help="replace existing text")


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run download_wiki.py. Return the exit code."""
    return run(parser().parse_args(argv))


def run(options: argparse.Namespace) -> int:
    """Run the command with parsed options. Return the exit code."""
    try:
        import mwparserfromhell  # noqa: F401
        import orjson  # noqa: F401
        import requests  # noqa: F401
    except ImportError as error:
        raise NemolaunchError(f"{error.name} is not installed: {how_to_install('tokens')}") from None
    from nemolaunch.download import dumps, wiki
    from nemolaunch.download.transfer import Client

    request = wiki.WikiRequest(
        language=options.language,
        date=options.date,
        output_dir=options.output_dir.expanduser(),
        mirror=options.mirror,
        limit=options.limit,
        workers=options.workers if options.workers is not None else len(os.sched_getaffinity(0)),
        keep_dump=options.keep_dump,
        on_error=options.on_error,
        overwrite=options.overwrite,
        contact=options.contact,
    )
    with _Bars() as bars:
        client = Client(request.contact, say=bars.say)
        dump = dumps.find(client, request.language, request.date, request.mirror)
        bars.say(f"{dump.url}")
        path, progress = wiki.make(
            request, client, dump, wiki.Watcher(bars.size, bars.download, bars.convert, bars.say)
        )
    if progress is None:
        print(f"{path}: exists already; use --overwrite to replace it")
        return 0
    counts = progress.counts
    print(f"{path}: {counts.articles:,} articles, {path.stat().st_size / 1e6:,.1f} MB")
    if not request.limit:
        print(
            f"dropped: {counts.redirects:,} redirects, {counts.empty:,} empty pages, {counts.other:,} other pages"
        )
    if progress.damaged:
        print(
            f"{len(progress.damaged):,} damaged parts of the dump were skipped; {wiki.rejects_of(path)} lists them",
            file=sys.stderr,
        )
    return 0


class _Bars:
    """Progress bars: one for the download, then one for the conversion."""

    def __init__(self) -> None:
        self.bar: Bar | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None

    def _titled(self, title: str) -> Bar:
        if self.bar is None or self.bar.title != title:
            self._close()
            self.bar = Bar(None, title).__enter__()
        return self.bar

    def size(self, total: int) -> None:
        """Set the size of the download."""
        self._titled("download").total = total

    def download(self, done: int) -> None:
        """Show the downloaded bytes."""
        self._titled("download").show(done)

    def convert(self, progress: object, total: int | None) -> None:
        """Show the converted articles."""
        from nemolaunch.download.convert import DumpProgress

        assert isinstance(progress, DumpProgress)
        self._titled("text").show(progress.offset, f"{progress.counts.articles:,} articles", total)

    def say(self, text: str) -> None:
        """Print a message above the bar."""
        if self.bar is not None:
            self.bar.say(text)
        else:
            print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
