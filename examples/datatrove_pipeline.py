"""Read JSON Lines with datatrove, filter them, and write Megatron's .bin/.idx: two tasks, then a merge.

python examples/datatrove_pipeline.py INPUT_FOLDER OUTPUT_FOLDER TOKENIZER
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader

from nemolaunch.api.datatrove_step import WriteTokens
from nemolaunch.api.ray_stage import merge_shards


def main(source: str, target: str, tokenizer: str, tasks: int = 2) -> None:
    """Run the pipeline, and join the shards of its tasks."""
    folder = Path(target)
    pipeline = [
        JsonlReader(source, glob_pattern="*.jsonl"),
        LambdaFilter(lambda document: len(document.text) > 20),
        WriteTokens(folder / "corpus", tokenizer),
    ]
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / "logs")).run()
    shards = [folder / f"corpus-{i + 1:05d}-of-{tasks:05d}_text_document" for i in range(tasks)]
    print(merge_shards(shards, folder / "corpus_text_document"))


if __name__ == "__main__":
    main(*sys.argv[1:4])
