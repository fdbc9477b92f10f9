"""Popular corpora and their names on the Hugging Face Hub."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from nemolaunch.errors import UsageError


@dataclass(frozen=True)
class CorpusPreset:
    """A data set, or a subset of one.

    Attributes:
        size: as stated by its card on the Hub; the actual size is queried before a download.
        key: column of the text.
    """

    repo: str
    subset: str | None
    licence: str
    size: str
    key: str = "text"


PRESETS = {
    "wikitext-2": CorpusPreset(
        "Salesforce/wikitext", "wikitext-2-raw-v1", "CC BY-SA 3.0, GFDL", "2 M tokens, 8 MB"
    ),
    "fineweb-10bt": CorpusPreset("HuggingFaceFW/fineweb", "sample-10BT", "ODC-By 1.0", "10 B tokens, 28 GB"),
    "fineweb-100bt": CorpusPreset(
        "HuggingFaceFW/fineweb", "sample-100BT", "ODC-By 1.0", "100 B tokens, 277 GB"
    ),
    "fineweb-edu-10bt": CorpusPreset("HuggingFaceFW/fineweb-edu", "sample-10BT", "ODC-By 1.0", "10 B tokens"),
    "fineweb-edu": CorpusPreset("HuggingFaceFW/fineweb-edu", "default", "ODC-By 1.0", "1.3 T tokens"),
    "slimpajama": CorpusPreset(
        "cerebras/SlimPajama-627B", "default", "of its sources, see its card", "627 B tokens, 895 GB"
    ),
    "starcoderdata": CorpusPreset(
        "bigcode/starcoderdata",
        None,
        "of each file, terms to accept",
        "250 B tokens, 783 GB of text",
        "content",
    ),
    "zyda-2": CorpusPreset("Zyphra/Zyda-2", "default", "ODC-By 1.0", "5 T tokens"),
    "finemath-4plus": CorpusPreset("HuggingFaceTB/finemath", "finemath-4plus", "ODC-By 1.0", "9.6 B tokens"),
    "finemath-3plus": CorpusPreset(
        "HuggingFaceTB/finemath", "finemath-3plus", "ODC-By 1.0", "34 B tokens, 65 GB"
    ),
}


def named(name: str) -> CorpusPreset | None:
    """Return the preset of a name; None for the id of a repository. Raises UsageError if it is neither."""
    if "/" in name:
        return None
    if name.lower() in PRESETS:
        return PRESETS[name.lower()]
    near = difflib.get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"known names are {', '.join(PRESETS)}"
    raise UsageError(f"{name!r} is neither a repository like HuggingFaceFW/fineweb nor a known name; {hint}")


def lines() -> list[str]:
    """Return a table of all presets."""
    rows = [(name, p.repo, p.subset or "", p.size, p.licence) for name, p in PRESETS.items()]
    table = [("NAME", "REPOSITORY", "SUBSET", "SIZE", "LICENCE"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
