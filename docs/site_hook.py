"""MkDocs hook: adds pages from outside `docs/`, and makes links that work on GitHub work on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# File of the repository → page of the site
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/gpu/README.md": "benchmarks/gpu.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
# Code, which stays as it is, or the target of a link
CODE_OR_TARGET = re.compile(r"^(```+).*?^\1|`[^`\n]+`|(?<=\]\()[^)\s]+(?=[)\s])", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose source is outside `docs/`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links to pages of the site, or to the repository where the site has no such page."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # one page: nothing to list beside it

    def replaced(match: re.Match[str]) -> str:
        text = match[0]
        return text if text.startswith("`") else site_link(text, uri, files, config.extra["repository"])

    return CODE_OR_TARGET.sub(replaced, markdown)


def site_link(link: str, uri: str, files: Files, repository: str) -> str:
    """Return what `link`, relative to a page's source file, has to be on that page of the site.

    A link that leads nowhere is returned as it is: MkDocs then warns of it.
    """
    path, hash_sign, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link
    source = SOURCES.get(uri, f"docs/{uri}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    found = PAGES.get(target) or PAGES.get(f"{target}/README.md") or target.removeprefix("docs/")
    if found != target and files.get_file_from_path(found):
        return posixpath.relpath(found, posixpath.dirname(uri) or ".") + hash_sign + anchor
    if (ROOT / target).exists():
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{repository}/{kind}/main/{target}{hash_sign}{anchor}"
    return link
