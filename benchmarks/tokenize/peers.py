"""Tokenise the same corpus in other ways: `python peers.py KIND CORPUS TOKENIZER OUTPUT WORKERS`."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def datatrove(corpus: str, tokenizer: str, output: str, workers: int) -> None:
    """Use datatrove's writer of Megatron's format, with one task per worker on a slice of the corpus."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

    with tempfile.TemporaryDirectory() as folder:
        _slices(corpus, Path(folder), workers)
        LocalPipelineExecutor(
            pipeline=[
                JsonlReader(folder),
                MegatronDocumentTokenizer(
                    output_folder=output,
                    tokenizer_name_or_path=f"{tokenizer}/tokenizer.json",
                    eos_token="<|end_of_text|>",
                ),
            ],
            tasks=workers,
            workers=workers,
            logging_dir=f"{output}-logs",
        ).run()


def _slices(corpus: str, folder: Path, count: int) -> None:
    """Split the corpus into `count` files of similar size."""
    size = os.path.getsize(corpus)
    with open(corpus, "rb") as file:
        for number in range(count):
            with open(folder / f"{number}.jsonl", "wb") as out:
                while file.tell() < size * (number + 1) // count and (line := file.readline()):
                    out.write(line)


def hf_map(corpus: str, tokenizer: str, output: str, workers: int) -> None:
    """Use `datasets.map` with a fast tokenizer, then write all ids to one file."""
    import numpy as np
    from datasets import load_dataset
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset("json", data_files=corpus, split="train", cache_dir=cache)
        mapped = data.map(
            lambda batch: {"ids": loaded(batch["text"]).input_ids},
            batched=True, num_proc=workers, remove_columns=data.column_names,
        )  # fmt: skip
        with open(f"{output}.bin", "wb") as out:
            for batch in mapped.with_format("numpy").iter(1000):
                for ids in batch["ids"]:
                    out.write(np.append(ids, loaded.eos_token_id).astype(np.uint16).tobytes())


def library(engine: str, corpus: str, tokenizer: str, workers: int) -> None:
    """Measure the tokenizer library alone, on texts already in memory, in one call with its own threads.

    Loading is not timed. The library is restricted to as many cores as there are workers.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    encode, texts = _engine(engine, tokenizer), [text for batch in _batches(corpus, 0, 1) for text in batch]
    begin, used = time.monotonic(), time.process_time()
    encode(texts, True)
    print(json.dumps({"seconds": time.monotonic() - begin, "cpu": time.process_time() - used}))


def processes(engine: str, corpus: str, tokenizer: str, workers: int) -> None:
    """Measure the library alone, in one process per worker, each on one core, with cache-friendly batches."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(workers), context.Queue()
    jobs = [
        context.Process(target=_encode_slice, args=(engine, corpus, tokenizer, i, workers, ready, results))
        for i in range(workers)
    ]
    for job in jobs:
        job.start()
    spans = [results.get() for _ in jobs]
    for job in jobs:
        job.join()
    begins, ends, used = zip(*spans, strict=True)
    print(json.dumps({"seconds": max(ends) - min(begins), "cpu": sum(used)}))


def _encode_slice(engine, corpus, tokenizer, number, workers, ready, results) -> None:
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", FASTOKENS_BPE_THREADS="1")
    batches = list(_batches(corpus, number, workers))
    encode = _engine(engine, tokenizer)
    ready.wait()
    begin, used = time.monotonic(), time.process_time()
    for batch in batches:
        encode(batch, True)
    results.put((begin, time.monotonic(), time.process_time() - used))


def _engine(engine: str, tokenizer: str):
    from nemolaunch.tokenization import engines
    from nemolaunch.tokenization.tokenizer import resolve

    spec = resolve(tokenizer, Path(tempfile.gettempdir()) / "nemolaunch-benchmark")
    return engines.load(engine, spec)


def _batches(corpus: str, number: int, of: int) -> Iterator[list[str]]:
    """Yield the texts of one slice of the corpus, about a quarter of a million characters at a time."""
    size = os.path.getsize(corpus)
    batch: list[str] = []
    with open(corpus, "rb") as file:
        file.seek(size * number // of)
        if number:
            file.readline()
        while file.tell() < size * (number + 1) // of and (line := file.readline()):
            batch.append(json.loads(line)["text"])
            if sum(map(len, batch)) > 1 << 18:
                yield batch
                batch = []
    yield batch


if __name__ == "__main__":
    kind, corpus_, tokenizer_, output_, workers_ = sys.argv[1:6]
    what, _, name = kind.partition("-")
    if what in ("library", "processes"):
        {"library": library, "processes": processes}[what](name, corpus_, tokenizer_, int(workers_))
    else:
        {"datatrove": datatrove, "hf-map": hf_map}[kind](corpus_, tokenizer_, output_, int(workers_))
