"""`nemolaunch download`: a Wikipedia, or a data set, model or tokenizer from the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.cli.commands import download_wiki
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.installation import how_to_install

if TYPE_CHECKING:
    from nemolaunch.download.hub import Selection, Where

ABOUT = {
    "wiki": "a Wikipedia from its dump, as JSON Lines",
    "hf": "a data set from the Hugging Face Hub, or a subset of one",
    "model": "a model's weights, configuration and tokenizer",
    "tokenizer": "only the files of a tokenizer",
}
EXAMPLES = {
    "wiki": "nemolaunch download wiki --language simple --output-dir corpus",
    "hf": "nemolaunch download hf HuggingFaceFW/fineweb --subset sample-10BT --dry-run",
    "model": "nemolaunch download model meta-llama/Llama-3.2-1B",
    "tokenizer": "nemolaunch download tokenizer meta-llama/Llama-3.2-1B",
}
ENVIRONMENT = (
    "HF_TOKEN, HF_ENDPOINT, HF_HUB_CACHE and HTTPS_PROXY are read from the environment. To resume an interrupted"
    " download, run the same command again."
)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    p = Parser(
        prog="nemolaunch download",
        example="\n".join([EXAMPLES["wiki"], EXAMPLES["hf"]]),
        description="Download text to train on, or a model.",
    )
    kinds = p.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, about in ABOUT.items():
        text = download_wiki.ABOUT if name == "wiki" else f"Download {about}. {ENVIRONMENT}"
        kind = kinds.add_parser(name, help=about, description=text, example=EXAMPLES[name])
        download_wiki.add_flags(kind) if name == "wiki" else _add_hub_flags(kind, name)
    return p


def _add_hub_flags(p: argparse.ArgumentParser, what: str) -> None:
    add = p.add_argument
    if what == "hf":
        add("repo", nargs="?", metavar="REPO", help="repository, or a name from --list")
        add("--list", action="store_true", help="list known names with size and licence")
        add("--subset", metavar="NAME", help="a configuration of the data set, or a folder in it")
        add(
            "--allow",
            nargs="+",
            default=[],
            metavar="PATTERN",
            help="download only files that match, within the subset if one is given",
        )
    else:
        add("repo", metavar="REPO", help="repository")
    add("--revision", metavar="NAME", help="branch, tag or commit (default: main)")
    add(
        "--output-dir",
        "--output",
        "-o",
        type=Path,
        metavar="DIR",
        help="plain folder to write to instead of the cache",
    )
    add("--cache-dir", type=Path, metavar="DIR", help="cache (default: HF_HUB_CACHE, else the Hub's own)")
    add("--endpoint", metavar="URL", help="mirror of the Hub (default: HF_ENDPOINT, else the Hub itself)")
    add("--workers", type=int, default=8, metavar="N", help="files to download at a time")
    add("--dry-run", "--dryrun", action="store_true", help="only show what would be downloaded, and its size")


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    options = parser().parse_args(argv)
    if options.what == "wiki":
        return download_wiki.run(options)
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise NemolaunchError(f"{error.name} is not installed: {how_to_install('tokens')}") from None
    return _hub(options)


def _hub(options: argparse.Namespace) -> int:
    from nemolaunch.download import hub, presets

    if options.what == "hf" and (options.list or options.repo is None):
        print("\n".join(presets.lines()))
        return 0
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: must be 1 or more")
    if options.endpoint is not None and not options.endpoint.startswith(("http://", "https://")):
        raise UsageError(f"--endpoint {options.endpoint}: must be a URL that starts with https:// or http://")
    where = hub.Where(
        endpoint=options.endpoint.rstrip("/") if options.endpoint else None,
        cache_dir=options.cache_dir,
        output_dir=options.output_dir,
        workers=options.workers,
    )
    preset = presets.named(options.repo) if options.what == "hf" else None
    kind = "dataset" if options.what == "hf" else "model"
    repository = hub.look(preset.repo if preset else options.repo, kind, options.revision, where)
    if options.what == "model":
        selection = hub.select_model(repository)
    elif options.what == "tokenizer":
        selection = hub.select_tokenizer(repository)
    else:
        selection = hub.select(
            repository, options.subset or (preset.subset if preset else None), options.allow
        )
    size, licence = selection.total_bytes, repository.licence or (preset.licence if preset else "not stated")
    print(f"{repository.name}: {len(selection.files):,} files, {_bytes(size)}, licence {licence}")
    if options.dry_run:
        print("\n".join(f"  {_bytes(repository.files[path]):>10}  {path}" for path in selection.files))
        return 0
    _fetch(selection, where, preset.key if preset else "text", options.what)
    return 0


def _fetch(selection: Selection, where: Where, key: str, what: str) -> None:
    from huggingface_hub.utils import disable_progress_bars

    from nemolaunch.cli.views.progress import Bar
    from nemolaunch.download import hub

    disable_progress_bars()
    with Bar(selection.total_bytes, selection.repository.name) as bar:
        folder = hub.download(selection, where, bar.show)
        bar.show(selection.total_bytes)
    print(folder)
    if what == "hf":
        keys = "" if key == "text" else f" --text-key {key}"
        print(f"tokenise it with: nemolaunch tokenize --input-dir {folder}{keys} …")


def _bytes(size: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


if __name__ == "__main__":
    sys.exit(main())
