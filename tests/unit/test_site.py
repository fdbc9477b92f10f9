"""The docs site builds without a warning, has every page, and asks nothing of other hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import nemolaunch as nl

ROOT = Path(__file__).parents[2]
FROM_OUTSIDE = {
    "README.md": "index.html",
    "CHANGELOG.md": "changelog.html",
    "CONTRIBUTING.md": "contributing.html",
    "benchmarks/README.md": "benchmarks/index.html",
    "benchmarks/gpu/README.md": "benchmarks/gpu.html",
}
DOCUMENTS = {
    **FROM_OUTSIDE,
    **{
        f"docs/{path}": str(path.with_suffix(".html"))
        for path in sorted(p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md"))
    },
}


class Page(HTMLParser):
    """What a page links to, what a browser loads for it, and its text.

    Attributes:
        links: targets of `a`.
        loaded: stylesheets, scripts and images.
        anchors: every `id`.
        text: without markup.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        str(path.relative_to(site)): Page(path) for path in site.rglob("*.html") if path.name != "404.html"
    }


def test_every_document_is_a_page_in_the_navigation(pages: dict[str, Page]) -> None:
    assert set(pages) == set(DOCUMENTS.values())
    assert set(DOCUMENTS.values()) - {"index.html"} <= set(pages["index.html"].links)
    for source, page in DOCUMENTS.items():
        title = (ROOT / source).read_text(encoding="utf-8").splitlines()[0]
        assert title.removeprefix("# ") in pages[page].text, page


def test_links_lead_to_pages_and_anchors(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for link in page.links:
            if "://" in link:
                continue
            path, _, anchor = unquote(link).partition("#")
            target = os.path.relpath((site / name).parent / path, site) if path else name
            target = "index.html" if target == "." else target
            assert target in pages or (site / target).is_file(), f"{name}: {link}"
            if anchor and anchor != "__skip":
                assert anchor in pages[target].anchors, f"{name}: {link}"


def test_links_that_work_on_github_work_here(pages: dict[str, Page]) -> None:
    """Between pages from inside and outside docs/; to the repository where there is no page."""
    repository = "https://github.com/nemolaunch/nemolaunch"
    assert "slurm.html" in pages["index.html"].links
    assert "../tokenize.html" in pages["benchmarks/index.html"].links
    assert "benchmarks/gpu.html" in pages["performance.html"].links
    assert f"{repository}/blob/main/examples/python_api.py" in pages["api.html"].links


def test_pages_load_nothing_from_other_hosts(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.loaded
        assert not [target for target in page.loaded if "//" in target], name


def test_the_api_page_documents_every_public_name(pages: dict[str, Page]) -> None:
    page = pages["api.html"]
    for name in nl.__all__:
        assert name == "__version__" or f"nemolaunch.{name}" in page.anchors, f"docs/api.md lacks {name}"
    for member in ("wait", "metrics", "last_checkpoint"):
        assert f"nemolaunch.Run.{member}" in page.anchors
    assert nl.plan.__doc__ is not None
    assert nl.plan.__doc__.splitlines()[0] in page.text
