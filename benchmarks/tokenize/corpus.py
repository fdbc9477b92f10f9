"""Build the benchmark's corpus and tokenizer from text available on any Debian machine with Python.

    apt-get download libreoffice-help-{zh-cn,zh-tw,ja,de,ru,en-us} manpages-zh debian-handbook
    python corpus.py --packages . --output corpus --megabytes 250

The packages contain help pages in six languages, manual pages in Chinese and a handbook in twelve languages;
the rest is the Python source and documentation installed with this interpreter. Every file is one document,
used once, in an order that mixes the kinds. The tokenizer is a byte-level BPE with 32,000 tokens in the style
of Llama 3.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import os
import random
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENDINGS = (
    ".py",
    ".pyi",
    ".md",
    ".rst",
    ".txt",
    ".html",
    ".gz",
    ".h",
    ".hpp",
    ".c",
    ".cpp",
    ".cu",
    ".js",
    ".json",
)
MAX_BYTES = 1_000_000


def text_of(path: Path) -> str | None:
    """Return the text of a file without tags; None if it is not text."""
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data[:MAX_BYTES].decode("utf-8")
    except (OSError, EOFError, ValueError):
        return None
    if path.suffix == ".html":
        text = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", text)
        text = re.sub(r"[ \t]*\n\s*", "\n", html.unescape(text))
    return text.strip() or None


def unpacked(packages: Path, folder: Path) -> Path:
    """Unpack all Debian packages into `folder`. Return it."""
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder


def documents(folders: list[Path], wanted: int) -> Iterator[str]:
    """Yield distinct texts from the files in the folders until there are `wanted` bytes."""
    chance, seen, size = random.Random(7), set(), 0
    lists = [sorted(p for p in f.rglob("*") if p.suffix in ENDINGS and p.is_file()) for f in folders]
    for paths in lists:
        chance.shuffle(paths)
    order = [path for group in zip_longest_flat(lists) for path in group]
    for path in order:
        text = text_of(path)
        if text is None or (key := hashlib.sha256(text.encode()).digest()) in seen:
            continue
        seen.add(key)
        size += len(text.encode())
        yield text
        if size > wanted:
            return


def zip_longest_flat(lists: list[list[Path]]) -> Iterator[list[Path]]:
    """Yield rounds that take from each list in proportion to its length."""
    rounds = max(map(len, lists))
    for i in range(rounds):
        yield [p for group in lists for p in group[i * len(group) // rounds : (i + 1) * len(group) // rounds]]


def train(corpus: Path, folder: Path, size: int) -> None:
    """Train a byte-level BPE with `size` tokens on the first 30 MB."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        *(f"<|reserved_special_token_{i}|>" for i in range(62)),
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first(corpus, 30_000_000), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": specials[0],
        "eos_token": specials[1],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _first(corpus: Path, wanted: int) -> Iterator[str]:
    with open(corpus, encoding="utf-8") as file:
        for line in file:
            wanted -= len(line)
            if wanted < 0:
                return
            yield json.loads(line)["text"]


def main() -> None:
    """Write the corpus, and train the tokenizer on it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=250)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    corpus = options.output / "corpus.jsonl"
    with tempfile.TemporaryDirectory() as folder, open(corpus, "w", encoding="utf-8") as out:
        folders = [unpacked(options.packages, Path(folder)), Path(sysconfig.get_paths()["purelib"])]
        for text in documents(folders, options.megabytes * 1_000_000):
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    train(corpus, options.output / "tokenizer", 32_000)


if __name__ == "__main__":
    main()
