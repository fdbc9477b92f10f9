"""A stage of Ray Data that writes Megatron's `.bin/.idx`, for `Dataset.map_batches`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    from nemolaunch.tokenization.manifest import Merged


class WriteTokens:
    """Stage that tokenises a batch of rows into a shard, and returns one row about it.

        where = ["/data/shards", "my/tokenizer"]
        rows = ds.map_batches(WriteTokens, fn_constructor_args=where, concurrency=4).take_all()
        merge_shards(rows, "/data/corpus")

    A batch that Ray does again, because a worker was lost, gets a shard of another name, and only one of the two is
    among the rows.

    Args:
        folder: where the shards go; all nodes must see it.
        tokenizer: folder or Hugging Face id of the tokenizer.
        column: the column with the text.
        engine: `auto`, `hf`, `fastokens` or `gigatoken`; all give the ids of `hf`.
    """

    def __init__(
        self, folder: str | Path, tokenizer: str | Path, column: str = "text", engine: str = "auto"
    ) -> None:
        self.folder, self.tokenizer = Path(folder).absolute(), str(tokenizer)
        self.column, self.engine = column, engine

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Write a shard of a batch's texts."""
        from nemolaunch.tokenization.text_writer import TextWriter
        from nemolaunch.tokenizer.library import cache_folder

        name = f"shard-{secrets.token_hex(8)}"
        writer = TextWriter(
            self.folder / name,
            tokenizer=self.tokenizer,
            cache=cache_folder(),
            source=f"ray/{name}",
            engine=self.engine,
        )
        with writer:
            for text in batch[self.column]:
                writer.add(str(text))
        made = writer.assembler.progress.outputs[0]
        return {"prefix": [str(writer.prefix)], "documents": [made.documents], "tokens": [made.tokens]}


def merge_shards(rows: Iterable[Mapping[str, Any]] | Sequence[str | Path], prefix: str | Path) -> Merged:
    """Join the shards that rows name to PREFIX.bin and PREFIX.idx with a manifest, in their order, and remove them.

    With `DataContext.get_current().execution_options.preserve_order` that is the order of the dataset.

    Raises NemolaunchError if there are none, or a shard is missing or damaged.
    """
    from nemolaunch.tokenization import manifest
    from nemolaunch.tokenization.merge import merge

    shards = [Path(str(row["prefix"])) if isinstance(row, Mapping) else Path(row) for row in rows]
    if not shards:
        raise NemolaunchError("there are no shards to merge: the dataset was empty")
    merged = merge(shards, Path(prefix).expanduser())
    for shard in shards:
        for path in (manifest.idx_of(shard), manifest.bin_of(shard), manifest.path_of(shard)):
            path.unlink(missing_ok=True)
    return merged
