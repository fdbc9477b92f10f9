"""Every command printed in the documents is understood by the real parsers."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest

from nemolaunch.cli import backend_table
from nemolaunch.cli import main as dispatcher
from nemolaunch.cli.manual import manual
from nemolaunch.cli.parsing.arguments import normalise_long_options
from nemolaunch.cli.resume_table import with_table

ROOT = Path(__file__).parents[2]
DOORS = {
    "train/llm/pretrain/pretrain_llm.py": "nemolaunch.cli.commands.pretrain",
    "preprocess_data.sh": "nemolaunch.cli.commands.tokenize",
}


def documents() -> list[Path]:
    outside = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return [*outside, *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, list[str]]]:
    """(document, words) of every command in a bash block."""
    found = []
    for path in documents():
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.split(" > ")[0], comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words:
                    found.append((path.name, words))
    return found


def parser_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Module with the parser, and the arguments for it; None for a command that is not ours."""
    if words[0] == "nemolaunch":
        return (dispatcher.module_of(words[1]), words[2:]) if words[1] in dispatcher.COMMANDS else None
    if words[0] in ("python", "bash") and len(words) > 1:
        door = words[1]
        if door in DOORS:
            return DOORS[door], words[2:]
        if (ROOT / door).suffix == ".py":
            imported = re.search(r"from (nemolaunch\.cli\.\w+) import", (ROOT / door).read_text())
            if imported:
                return imported[1], words[2:]
    return None


@pytest.mark.parametrize(
    ("document", "words"), commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v)[:60]
)
def test_the_command_is_understood(document: str, words: list[str]) -> None:
    if words[0] == "nemolaunch":
        assert words[1] in dispatcher.COMMANDS or words[1].startswith("-"), document
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    if words[0] in ("python", "bash") and words[1] != "-m":
        assert (ROOT / words[1]).exists()
    target = parser_of(words)
    if target:
        module, arguments = target
        importlib.import_module(module).parser().parse_args(normalise_long_options(arguments))


def test_the_first_command_stands_before_line_25() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(number for number, line in enumerate(lines, 1) if line == "make demo") < 25


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_changelog_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    newest = re.search(
        r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert version is not None
    assert newest is not None
    assert newest[1] == version[1]


def test_lists_and_tables_follow_an_empty_line() -> None:
    """GitHub does without; the site's Markdown takes them for text of the paragraph."""
    for path in documents():
        text = re.sub(r"^```.*?^```", "```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for before, line in itertools.pairwise(text.splitlines()):
            starts = (
                re.match(r"[-*] |\d+\. |\|", line) and before and not re.match(r"[-*] |\d+\. |\||\s", before)
            )
            assert not starts, f"{path.name}: {line}"


def test_the_manual_is_what_the_parsers_say() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == manual(), "`make docs` writes docs/commands.md anew"


def test_the_table_of_resumes_is_the_codes() -> None:
    written = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
    assert written == with_table(written), "`make docs` writes the table of docs/resume.md anew"


def test_the_table_of_backends_is_the_codes() -> None:
    written = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    assert written == backend_table.with_table(written), (
        "`make docs` writes the table of docs/backends.md anew"
    )
