"""Dumps of a Wikipedia: which exist, their address and checksum.

Layout of https://dumps.wikimedia.org and its mirrors: WIKI/DATE/WIKI-DATE-pages-articles-multistream.xml.bz2
beside WIKI-DATE-sha1sums.txt; WIKI/ lists the dates. An incomplete dump has no line for the file.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from nemolaunch.download.transfer import Client, NotFound
from nemolaunch.errors import UsageError

SERVER = "https://dumps.wikimedia.org"
WHAT = "pages-articles-multistream"
# Wikipedias whose database is named by an older code than their address (mediawiki's `dumpInterwiki.php`).
OLDER_NAMES = {
    "be-tarask": "be_x_old", "gsw": "als", "lzh": "zh_classical", "nan": "zh_min_nan", "nb": "no",
    "rup": "roa_rup", "sgs": "bat_smg", "vro": "fiu_vro", "yue": "zh_yue",
}  # fmt: skip


@dataclass(frozen=True)
class Dump:
    """One dump: its wiki (`zh_classicalwiki`), date (`20261101`), address and SHA-1."""

    wiki: str
    date: str
    url: str
    sha1: str

    @property
    def stem(self) -> str:
        """Return its file name without endings."""
        return f"{self.wiki}-{self.date}-{WHAT}"


def wiki_of(language: str) -> str:
    """Return the database of a language's Wikipedia: `zh-classical` → `zh_classicalwiki`."""
    code = language.strip().lower()
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", code):
        raise UsageError(f"--language {language!r} is not a code like en or zh-classical")
    if code.endswith("wiki"):
        return code.replace("-", "_")
    return OLDER_NAMES.get(code.replace("_", "-"), code).replace("-", "_") + "wiki"


def find(client: Client, language: str, date: str, mirror: str) -> Dump:
    """Return the dump of a date (`20261101`), or the latest complete one.

    Raises UsageError for a language or date without one; the message lists what is available.
    """
    wiki, root = wiki_of(language), mirror.rstrip("/")
    if date == "latest":
        dates = _dates(client, root, wiki, language)
        found = next((dump for d in dates if (dump := _dump(client, root, wiki, d))), None)
        if found is None:
            raise UsageError(f"{root}/{wiki}/ has no complete {WHAT} dump among {', '.join(dates) or 'none'}")
        return found
    if not re.fullmatch(r"\d{8}", date):
        raise UsageError(f"--date {date!r} is neither latest nor a date like 20261101")
    dump = _dump(client, root, wiki, date)
    if dump is None:
        dates = _dates(client, root, wiki, language)
        raise UsageError(
            f"--date {date}: {root} has no complete {WHAT} dump of {wiki} for that date;"
            f" dates: {', '.join(dates)}"
        )
    return dump


def _dates(client: Client, root: str, wiki: str, language: str) -> list[str]:
    """Return the dates that the server lists, newest first."""
    try:
        page = client.text(f"{root}/{wiki}/")
    except NotFound:
        raise UsageError(
            f"--language {language}: {root} has no dumps of {wiki}{_near(client, root, wiki)}"
        ) from None
    return sorted(set(re.findall(r'href="(?:[^"]*/)?(\d{8})/?"', page)), reverse=True)


def _near(client: Client, root: str, wiki: str) -> str:
    try:
        known = set(re.findall(r"\b([a-z][a-z0-9_]*wiki)\b", client.text(f"{root}/backup-index.html")))
    except NotFound:
        return ""
    near = difflib.get_close_matches(wiki, sorted(known), n=4, cutoff=0.6)
    codes = [name.removesuffix("wiki").replace("_", "-") for name in near]
    return f"; did you mean {', '.join(codes)}?" if codes else ""


def _dump(client: Client, root: str, wiki: str, date: str) -> Dump | None:
    """Return the dump of a date if its file is complete."""
    folder, name = f"{root}/{wiki}/{date}", f"{wiki}-{date}-{WHAT}.xml.bz2"
    try:
        sums = client.text(f"{folder}/{wiki}-{date}-sha1sums.txt")
    except NotFound:
        return None
    for line in sums.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*") == name:
            return Dump(wiki, date, f"{folder}/{name}", words[0].lower())
    return None
