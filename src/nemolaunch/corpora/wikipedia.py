"""Wikipedia articles as JSON Lines, from the plain-text snapshots that Wikimedia publishes as Parquet.

Source: https://huggingface.co/datasets/wikimedia/wikipedia, one folder `<snapshot>.<language>` of
`train-<i>-of-<n>.parquet` files with the columns id, url, title and text. Licence: CC BY-SA, which is why the
address of each article is kept.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nemolaunch.corpora.hub import NoSuchFolder, fetch, list_folder
from nemolaunch.errors import NemolaunchError, UsageError

DATASET = "wikimedia/wikipedia"
SNAPSHOT = "20231101"  # the only one the dataset holds
COLUMNS = ["text", "title", "url", "id"]


@dataclass(frozen=True, kw_only=True)
class Wikipedia:
    """What to download: one language of one snapshot, whole or its beginning, and where from."""

    language: str
    snapshot: str = SNAPSHOT
    max_files: int | None = None
    max_articles: int | None = None
    endpoint: str | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--url-limit", self.max_files), ("--limit", self.max_articles)):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value}: must be 1 or more; leave it out for no limit")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise UsageError(
                f"--endpoint {self.endpoint}: must be an address that begins with https:// or http://"
            )

    @property
    def folder(self) -> str:
        """The folder of the dataset that holds this language."""
        return f"{self.snapshot}.{self.language.replace('_', '-')}"

    def files(self) -> list[str]:
        """Paths of the Parquet files to read, in order.

        Raises `UsageError` for a language or snapshot that is not there, with the nearest that are.
        """
        try:
            paths = list_folder(DATASET, self.folder, self.endpoint)
        except NoSuchFolder:
            raise UsageError(self._unknown()) from None
        parquet = [path for path in paths if path.endswith(".parquet")]
        if not parquet:
            raise NemolaunchError(f"folder {self.folder} of dataset {DATASET} holds no Parquet file")
        return parquet[: self.max_files]

    def _unknown(self) -> str:
        folders = [path for path in list_folder(DATASET, "", self.endpoint) if "." in path.strip(".")]
        snapshots = sorted({name.split(".")[0] for name in folders if name[0].isdigit()})
        if self.snapshot not in snapshots:
            return f"--snapshot {self.snapshot}: there is none of that date; there is {', '.join(snapshots)}"
        languages = [name.split(".", 1)[1] for name in folders if name.startswith(f"{self.snapshot}.")]
        near = difflib.get_close_matches(self.language, languages, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {len(languages)} others."
        return f"--language {self.language}: there is no Wikipedia with that code; {hint}"

    def articles(self, files: list[str], on_file: Callable[[str, int], None]) -> Iterator[dict[str, str]]:
        """Yield the articles of `files` that have text, at most `max_articles`.

        A file is downloaded when its first article is asked for; then `on_file` is told its name and how many
        articles it holds. Raises `NemolaunchError` for a file that cannot be fetched or read.
        """
        everything = itertools.chain.from_iterable(self._read(path, on_file) for path in files)
        yield from itertools.islice(everything, self.max_articles)

    def _read(self, path: str, on_file: Callable[[str, int], None]) -> Iterator[dict[str, str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        local = fetch(DATASET, path, self.endpoint, self.cache_dir)
        try:
            table = pq.ParquetFile(local)
            on_file(path, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=1000, columns=COLUMNS):
                yield from (row for row in batch.to_pylist() if row["text"])
        except (pa.ArrowException, KeyError) as error:
            raise NemolaunchError(
                f"{local} is not a Wikipedia snapshot ({error}); delete it and run the same command again"
            ) from error


def download(
    wikipedia: Wikipedia,
    output_dir: Path,
    on_file: Callable[[str, int], None] = lambda name, articles: None,
    on_article: Callable[[], None] = lambda: None,
) -> tuple[Path, int]:
    """Write `output_dir/wikipedia-<snapshot>-<language>.jsonl`, whole or not at all.

    Each line is `{"text", "title", "url", "id"}`. Returns the file and the number of articles in it.
    """
    import orjson

    target = output_dir / f"wikipedia-{wikipedia.folder.replace('.', '-', 1)}.jsonl"
    files = wikipedia.files()
    count = 0
    with _whole_file(target) as file:
        for article in wikipedia.articles(files, on_file):
            file.write(orjson.dumps(article) + b"\n")
            count += 1
            on_article()
        if not count:
            raise NemolaunchError(f"folder {wikipedia.folder} of dataset {DATASET} has no article with text")
    return target, count


@contextmanager
def _whole_file(target: Path) -> Iterator[BinaryIO]:
    """A file that gets its name only when everything is written and on the disk."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    except OSError as error:
        raise UsageError(f"--output-dir {target.parent}: cannot write there: {error.strerror}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
