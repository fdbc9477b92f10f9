"""A step of a datatrove pipeline that writes Megatron's `.bin/.idx`. Imports datatrove, which must be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from nemolaunch.tokenization.text_writer import TextWriter
from nemolaunch.tokenizer.library import cache_folder


class WriteTokens(PipelineStep):
    """Last step of a pipeline: tokenises each document's text, and passes it on.

    Each task writes a shard, `NAME-00001-of-00004_text_document` and so on; `nemolaunch merge` or
    `nemolaunch.merge` joins them, in the order of the tasks.

    Args:
        prefix: folder and first part of the shards' names; all tasks must see the folder.
        tokenizer: folder or Hugging Face id of the tokenizer.
        engine: `auto`, `hf`, `fastokens` or `gigatoken`; all give the ids of `hf`.
    """

    name = "nemolaunch"
    type = "TOKENIZER"

    def __init__(self, prefix: str | Path, tokenizer: str | Path, engine: str = "auto") -> None:
        super().__init__()
        self.prefix, self.tokenizer, self.engine = Path(prefix), str(tokenizer), engine

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Any:
        """Write a task's shard, which appears when all of its documents have been passed on."""
        shard = self.prefix.with_name(f"{self.prefix.name}-{rank + 1:05d}-of-{world_size:05d}")
        writer = TextWriter(
            shard,
            tokenizer=self.tokenizer,
            cache=cache_folder(),
            source=f"datatrove/{shard.name}",
            engine=self.engine,
        )
        with writer:
            for document in data:
                writer.add(document.text)
                self.update_doc_stats(document)
                yield document
