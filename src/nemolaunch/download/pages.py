"""Articles from the XML of a Wikimedia dump, schema `export-0.11` and earlier."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from nemolaunch.download.wikitext import Namespaces, plain

REDIRECT = re.compile(r"\s*#[^\W\d_]+\s*:?\s*\[\[")


@dataclass(frozen=True)
class Site:
    """The head of a dump: the address of its articles, up to their names, and its namespaces."""

    address: str
    namespaces: Namespaces


@dataclass
class PageCounts:
    """Number of pages of a dump by kind."""

    articles: int = 0
    redirects: int = 0
    empty: int = 0
    other: int = 0

    def add(self, more: PageCounts) -> None:
        """Add the counts of another part of the dump."""
        self.articles += more.articles
        self.redirects += more.redirects
        self.empty += more.empty
        self.other += more.other


@dataclass
class Pages:
    """The articles of one stream, each a dictionary, and counts of all its pages."""

    articles: list[dict[str, str]] = field(default_factory=list)
    counts: PageCounts = field(default_factory=PageCounts)


def read_site(head: bytes) -> Site:
    """Read the site from the first stream. Raises ValueError if it is not the head of a dump."""
    begin, end = head.find(b"<siteinfo"), head.find(b"</siteinfo>")
    if begin < 0 or end < 0:
        raise ValueError("it has no <siteinfo>")
    try:
        site = ET.fromstring(head[begin : end + len(b"</siteinfo>")])
    except ET.ParseError as error:
        raise ValueError(f"its <siteinfo> is damaged ({error})") from None
    names = {int(n.get("key", "0")): n.text or "" for n in site.iter("namespace")}
    base = site.findtext("base") or ""
    return Site(base[: base.rfind("/") + 1], Namespaces.of(names))


def read_pages(content: bytes, site: Site) -> Pages:
    """Read the articles in a decompressed stream. Raises ValueError if its XML is damaged."""
    found = Pages()
    for page in _elements(content):
        article = _article(page, site, found.counts)
        if article:
            found.articles.append(article)
            found.counts.articles += 1
    return found


def _elements(content: bytes) -> Iterator[ET.Element]:
    """Return all complete `<page>` elements; the first and last stream have parts of the one around them."""
    begin, end = content.find(b"<page>"), content.rfind(b"</page>")
    if begin < 0:
        return iter(())
    try:
        return iter(ET.fromstring(b"<pages>" + content[begin : end + len(b"</page>")] + b"</pages>"))
    except ET.ParseError as error:
        raise ValueError(f"damaged XML ({error})") from None


def _article(page: ET.Element, site: Site, counts: PageCounts) -> dict[str, str] | None:
    """Return a page's article if it is in the main namespace, wikitext, not a redirect, and has text."""
    title, wikitext = page.findtext("title") or "", page.findtext("revision/text") or ""
    if page.findtext("ns") != "0" or page.findtext("revision/model", "wikitext") != "wikitext":
        counts.other += 1
    elif page.find("redirect") is not None or REDIRECT.match(wikitext):
        counts.redirects += 1
    else:
        text = plain(wikitext, site.namespaces)
        if text:
            url = site.address + quote(title.replace(" ", "_"), safe="/:;@$!*(),~'")
            return {"text": text, "title": title, "url": url, "id": page.findtext("id") or ""}
        counts.empty += 1
    return None
