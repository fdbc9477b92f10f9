"""`nemolaunch inspect data PREFIX`: show what a .bin/.idx pair contains, and check it for corruption."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.trust_flag import add_trust_flag
from nemolaunch.errors import UsageError
from nemolaunch.system.atomic_files import atomic_file

if TYPE_CHECKING:
    from nemolaunch.tokenization.scan import Scan

BAR = 40


def add(kinds: Any) -> None:
    """Add the parser of `inspect data`."""
    p = kinds.add_parser(
        "data",
        help="a .bin/.idx pair",
        example="nemolaunch inspect data data/preprocessed/sample_text_document --documents 2",
        description="Show and check tokenised data. Exits with 1 and the place if it is corrupt.",
    )
    flag = p.add_argument
    flag("prefix", metavar="PREFIX", help="path without .bin/.idx")
    flag(
        "--hf-tokenizer",
        "--tokenizer",
        metavar="DIR",
        help="tokenizer (default: the one recorded beside the data)",
    )
    add_trust_flag(p)
    flag("--documents", type=int, default=3, metavar="N", help="number of documents to decode")
    flag("--picture", metavar="FILE", help="draw the histogram of document lengths as .png or .svg")
    flag("--quick", action="store_true", help="check only the .idx, do not read the .bin")
    flag("--json", action="store_true", help="print one JSON object instead")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command. Return 1 for corrupt data."""
    if options.picture and not options.picture.lower().endswith((".png", ".svg")):
        raise UsageError(f"--picture {options.picture}: the name must end in .png or .svg")
    from nemolaunch.tokenization import manifest
    from nemolaunch.tokenization.merge import expand
    from nemolaunch.tokenization.scan import scan

    (prefix,) = expand([options.prefix])[:1]
    record = manifest.read(prefix)
    known = (record or {}).get("tokenizer") or {}
    vocab_size, eod_id = known.get("vocab_size"), known.get("eod_id")
    tokenizer = options.hf_tokenizer or known.get("name")
    decode = None
    if tokenizer and (options.hf_tokenizer or options.documents):
        spec = _tokenizer(
            tokenizer, required=bool(options.hf_tokenizer), trust_remote_code=options.trust_remote_code
        )
        if spec is not None:
            vocab_size, eod_id = max(spec.vocab_size, spec.max_id + 1), spec.eod_id
            decode = spec.load().decode
    found = scan(prefix, vocab_size=vocab_size, eod_id=eod_id, ids=not options.quick)
    _compare(found, record)
    if options.json:
        print(
            json.dumps({"prefix": str(prefix), "tokenizer": tokenizer, **asdict(found)}, ensure_ascii=False)
        )
    else:
        _print(prefix, found, tokenizer)
        if not found.problems:
            _print_documents(prefix, options.documents, decode)
    if options.picture and found.histogram:
        draw(found, Path(options.picture), prefix.name)
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found.problems else 0


def _tokenizer(name: str, *, required: bool, trust_remote_code: bool) -> Any:
    """Return the tokenizer, or None if the recorded one is no longer there."""
    from nemolaunch.tokenization.tokenizer import resolve
    from nemolaunch.tokenizer.library import cache_folder

    if not required and not Path(name).is_dir():
        return None
    try:
        return resolve(name, cache_folder(), trust_remote_code=trust_remote_code)
    except UsageError:
        if required:
            raise
        return None


def _compare(found: Scan, record: dict[str, Any] | None) -> None:
    """Compare the data with their manifest."""
    for key in ("documents", "sequences", "tokens", "dtype"):
        if record and record.get(key) != getattr(found, key):
            found.problems.append(
                f"the manifest records {key} {record.get(key)}, but the data have {getattr(found, key)}"
            )


def _print(prefix: Path, found: Scan, tokenizer: str | None) -> None:
    mean = found.tokens / max(found.documents, 1)
    print(f"{prefix}")
    print(f"  documents  {found.documents:,} ({found.sequences:,} sequences)")
    print(f"  tokens     {found.tokens:,} ({found.dtype})")
    print(f"  lengths    {found.shortest:,} to {found.longest:,} tokens, {mean:,.1f} on average")
    print(f"  tokenizer  {tokenizer or 'not recorded'}")
    if found.max_id is not None:
        print(f"  ids        up to {found.max_id:,}")
    if found.without_eod is not None:
        print(f"  end        {found.without_eod:,} documents do not end with the end-of-document token")
    most = max(found.histogram, default=0)
    for place, count in buckets(found):
        bar = "█" * round(BAR * count / most) if most else ""
        print(f"  {bucket(place):>21} {bar:<{BAR}} {count:,}")


def buckets(found: Scan) -> list[tuple[int, int]]:
    """Return the places of the histogram with their counts, from the first that is not zero."""
    first = next((place for place, count in enumerate(found.histogram) if count), 0)
    return list(enumerate(found.histogram))[first:]


def bucket(place: int) -> str:
    """Return the lengths that a place of the histogram counts, as text."""
    if place < 2:
        return "empty" if place == 0 else "1"
    return f"{2 ** (place - 1):,}-{2**place - 1:,}"


def _print_documents(prefix: Path, count: int, decode: Any) -> None:
    from nemolaunch.tokenization.scan import first_documents

    for number, ids in enumerate(first_documents(prefix, count, 200)):
        text = (
            repr(decode(ids, skip_special_tokens=False)[:300])
            if decode
            else " ".join(map(str, ids[:30])) + " …"
        )
        print(f"  document {number}: {text}")


def draw(found: Scan, path: Path, title: str) -> None:
    """Draw the histogram into a file: horizontal bars, as the lengths beside them are long words."""
    from matplotlib.figure import Figure

    shown = buckets(found)
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([bucket(place) for place, _ in shown], [count for _, count in shown], height=0.8)
    axes.bar_label(bars, [f"{count:,}" for _, count in shown], padding=4, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.set_ylabel("tokens in a document")
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(f"{title}: {found.documents:,} documents, {found.tokens:,} tokens", loc="left")
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=160)
