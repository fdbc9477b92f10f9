"""Write the files beside this one with NeMo Curator 1.4.0: `python record.py jsonl FOLDER`, and again with parquet."""

import json
import sys
import tempfile
from pathlib import Path

import ray
from nemo_curator.backends.ray_data import RayDataExecutor
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.text.io.reader import JsonlReader
from nemo_curator.stages.text.io.writer import JsonlWriter, ParquetWriter
from nemo_curator.stages.text.modules import AddId


def main(form: str, folder: str) -> None:
    """Read three files, give each document an id, and write them."""
    with tempfile.TemporaryDirectory() as source:
        for file in range(3):
            texts = [f'Document {4 * file + i}: some words, 中文 and 😀.\nA second "line".' for i in range(4)]
            rows = [{"content": text, "source": {"url": None, "shard": file}} for text in texts]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            Path(source, f"{file}.jsonl").write_text("".join(lines))
        ray.init("local", num_cpus=3, object_store_memory=128 << 20, include_dashboard=False)
        writer = {"jsonl": JsonlWriter, "parquet": ParquetWriter}[form]
        stages = [JsonlReader(source, files_per_partition=1), AddId("id"), writer(f"{folder}/{form}")]
        Pipeline("curator", stages=stages).run(RayDataExecutor())


if __name__ == "__main__":
    main(*sys.argv[1:])
