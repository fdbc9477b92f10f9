"""Run one contender, print its results as JSON: `contenders.py KIND FOLDER TOKENIZER SECONDS BUFFER`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEQ_LENGTH = 2048
SHARES = {"a": 0.7, "b": 0.3}
LITDATA = "litdata-{}"


def timed(samples: Iterable[Any], seconds: float) -> dict[str, float]:
    """Take samples one by one for `seconds`, starting with the first one. Return the speed."""
    begin = time.monotonic()
    iterator = iter(samples)
    next(iterator)
    first = time.monotonic()
    count = 0
    while time.monotonic() - first < seconds:
        next(iterator)
        count += 1
    return {
        "tokens_per_s": count * SEQ_LENGTH / (time.monotonic() - first),
        "first_s": first - begin,
    }


def one_worker(dataset: Any) -> Any:
    """Return PyTorch's loader with one worker process, sample by sample."""
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=16, collate_fn=lambda x: x)


def nemolaunch(folder: Path, tokenizer: str, buffer: int, engine: str) -> Any:
    """Return samples from a run's own readers and worker processes."""
    from nemolaunch.facts.dataset_words import read_stream
    from nemolaunch.job import Job
    from nemolaunch.ranks.stream_feed import Samples, Work
    from nemolaunch.run.folder import RunDir
    from nemolaunch.stream import session
    from nemolaunch.tokenization.tokenizer import resolve

    cache = Path(tempfile.mkdtemp())
    spec = resolve(tokenizer, cache)
    values = {
        "text_key": "text", "blend_by": "tokens", "stream_readers": 1, "data_resume": "exact", "seed": 1,
        "num_workers": 1, "split": "1,0,0", "shard_shuffle": True, "shuffle_buffer": buffer, "bad_data": "skip-rows",
        "stopping_strategy": "fixed-tokens", "seq_length": SEQ_LENGTH,
    }  # fmt: skip
    words = ",".join(f"{folder / name}:{share}" for name, share in SHARES.items())
    begun = session.begin(
        RunDir(cache),
        Job(**values),
        read_stream((words,)),
        tokenizer=spec.digest,
        data_parallel_size=1,
        samples=0,
        state=None,
    )
    work = Work(setup=begun.setup, readers=(0,), states=begun.state.readers, spec=spec, engine=engine)
    return one_worker(Samples(work))


def datasets(folder: Path, tokenizer: str, buffer: int) -> Any:
    """Return samples from `datasets` in streaming mode: mixed, shuffled, tokenised in batches, packed."""
    import datasets as library
    from torch.utils.data import IterableDataset
    from transformers import AutoTokenizer

    parts = [
        library.load_dataset(
            "parquet", data_files=str(folder / name / "*.parquet"), split="train", streaming=True
        )
        for name in SHARES
    ]
    mixed = library.interleave_datasets(
        [part.repeat(None) for part in parts], probabilities=list(SHARES.values()), seed=1
    ).shuffle(seed=1, buffer_size=buffer)
    words = AutoTokenizer.from_pretrained(tokenizer)

    class Packed(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
            ids: list[int] = []
            for batch in mixed.iter(64):
                for row in words(batch["text"])["input_ids"]:
                    ids += [*row, words.eos_token_id]
                while len(ids) > SEQ_LENGTH:
                    yield np.array(ids[: SEQ_LENGTH + 1], np.int32)
                    ids = ids[SEQ_LENGTH:]

    return one_worker(Packed())


def prepare_litdata(folder: Path, tokenizer: str) -> dict[str, float]:
    """Tokenise into litdata's chunks, with one worker."""
    from litdata import TokensLoader, optimize

    count, seconds = 0, 0.0
    for name in SHARES:
        begin = time.monotonic()
        optimize(
            fn=Tokenise(tokenizer),
            inputs=[str(p) for p in sorted((folder / name).glob("*.parquet"))],
            output_dir=str(folder / LITDATA.format(name)),
            chunk_size=(SEQ_LENGTH + 1) * 4096,
            item_loader=TokensLoader(block_size=SEQ_LENGTH + 1),
            num_workers=1,
            mode="overwrite",
        )
        seconds += time.monotonic() - begin
        chunks = json.loads((folder / LITDATA.format(name) / "index.json").read_text())["chunks"]
        count += sum(chunk["dim"] for chunk in chunks)
    return {"tokens_per_s": count / seconds}


class Tokenise:
    """Turns the rows of a file into token tensors."""

    def __init__(self, tokenizer: str) -> None:
        self.name = tokenizer
        self.words: Any = None

    def __call__(self, path: str) -> Iterator[Any]:
        import pyarrow.parquet as pq
        import torch
        from transformers import AutoTokenizer

        self.words = self.words or AutoTokenizer.from_pretrained(self.name)
        for batch in pq.ParquetFile(path).iter_batches(64, columns=["text"]):
            for row in self.words(batch.column(0).to_pylist())["input_ids"]:
                yield torch.tensor([*row, self.words.eos_token_id], dtype=torch.int32)


def litdata(folder: Path) -> Any:
    """Return samples from litdata's readers of its own chunks, mixed by weight."""
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader

    parts = [
        StreamingDataset(
            str(folder / LITDATA.format(name)),
            item_loader=TokensLoader(block_size=SEQ_LENGTH + 1),
            shuffle=True,
        )
        for name in SHARES
    ]
    mixed = CombinedStreamingDataset(parts, weights=list(SHARES.values()), iterate_over_all=False)

    def forever() -> Iterator[Any]:
        while True:
            yield from StreamingDataLoader(mixed, batch_size=1, num_workers=1)

    return forever()


def prepare_indexed(folder: Path, tokenizer: str) -> dict[str, float]:
    """Tokenise into .bin/.idx, with one worker."""
    from nemolaunch.cli.commands.tokenize import main

    shutil.rmtree(folder / "indexed", ignore_errors=True)
    begin, count = time.monotonic(), 0
    for name in SHARES:
        words = ["--hf-tokenizer", tokenizer, "--data-prefix", name, "--input-dir", str(folder / name)]
        assert main([*words, "--output-dir", str(folder / "indexed"), "--workers", "1"]) == 0
        manifest = folder / "indexed" / "preprocessed" / f"{name}_text_document.manifest.json"
        count += json.loads(manifest.read_text())["tokens"]
    return {"tokens_per_s": count / (time.monotonic() - begin)}


def indexed(folder: Path) -> Any:
    """Return samples from Megatron's own blended dataset over the .bin/.idx."""
    import torch
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from torch.utils.data import IterableDataset

    class Tokenizer:
        eod = 0
        unique_identifiers = {"class": "of the files"}  # noqa: RUF012 - part of the cache's name

    where = folder / "indexed" / "preprocessed"
    paths, weights = [str(where / f"{name}_text_document") for name in SHARES], list(SHARES.values())
    config = GPTDatasetConfig(
        random_seed=1, sequence_length=SEQ_LENGTH, blend=(paths, weights), split="1,0,0", tokenizer=Tokenizer(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        path_to_cache=tempfile.mkdtemp(),
    )  # fmt: skip
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [2_000_000, 0, 0], lambda: True, config).build()

    class InOrder(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            return (train[i] for i in range(len(train)))

    return one_worker(InOrder())


def main() -> None:
    """Run the contender named on the command line."""
    kind, folder, tokenizer, seconds, buffer = sys.argv[1:6]
    place = Path(folder)
    if kind == "prepare-litdata":
        found = prepare_litdata(place, tokenizer)
    elif kind == "prepare-indexed":
        found = prepare_indexed(place, tokenizer)
    else:
        samples = {
            "nemolaunch": lambda: nemolaunch(place, tokenizer, int(buffer), "fastokens"),
            "nemolaunch-hf": lambda: nemolaunch(place, tokenizer, int(buffer), "hf"),
            "datasets": lambda: datasets(place, tokenizer, int(buffer)),
            "litdata": lambda: litdata(place),
            "indexed": lambda: indexed(place),
        }[kind]()
        found = timed(samples, float(seconds))
    print(json.dumps(found))
    sys.stdout.flush()
    import os

    os._exit(0)  # do not wait for worker processes


if __name__ == "__main__":
    main()
