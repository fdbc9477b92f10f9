"""Read JSON Lines with Ray Data, and write Megatron's .bin/.idx.

python examples/ray_data.py INPUT_FOLDER OUTPUT_FOLDER TOKENIZER
"""

import sys
from pathlib import Path

import ray

from nemolaunch.api.ray_stage import WriteTokens, merge_shards


def main(source: str, target: str, tokenizer: str) -> None:
    """Tokenise in batches of 1,000 documents, and join them in the order of the dataset."""
    folder = Path(target).absolute()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = (
        ray.data.read_json(source)
        .map_batches(
            WriteTokens,
            fn_constructor_args=[folder / "shards", str(Path(tokenizer).absolute())],
            batch_size=1000,
            concurrency=1,
        )
        .take_all()
    )
    print(merge_shards(rows, folder / "corpus_text_document"))


if __name__ == "__main__":
    main(*sys.argv[1:4])
