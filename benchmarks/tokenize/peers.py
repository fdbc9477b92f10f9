"""Other ways to tokenise the same corpus: `python peers.py KIND CORPUS TOKENIZER OUTPUT WORKERS`."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path


def datatrove(corpus: str, tokenizer: str, output: str, workers: int) -> None:
    """datatrove's own writer of Megatron's format, a task for each worker on a slice of the corpus."""
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
    """The corpus in as many files, by size."""
    size = os.path.getsize(corpus)
    with open(corpus, "rb") as file:
        for number in range(count):
            with open(folder / f"{number}.jsonl", "wb") as out:
                while file.tell() < size * (number + 1) // count and (line := file.readline()):
                    out.write(line)


def hf_map(corpus: str, tokenizer: str, output: str, workers: int) -> None:
    """`datasets.map` with a fast tokenizer, then all ids written in a row."""
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
    """The tokenizer library alone, on texts already in memory; loading is not timed."""
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
    print(json.dumps({"seconds": max(end for _, end in spans) - min(begin for begin, _ in spans)}))


def _encode_slice(engine, corpus, tokenizer, number, workers, ready, results) -> None:
    os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = "1", "false"
    from nemolaunch.tokens import engines
    from nemolaunch.tokens.tokenizer import resolve

    size = os.path.getsize(corpus)
    batches: list[list[str]] = [[]]
    chars = 0
    with open(corpus, "rb") as file:
        file.seek(size * number // workers)
        if number:
            file.readline()
        while file.tell() < size * (number + 1) // workers and (line := file.readline()):
            text = json.loads(line)["text"]
            batches[-1].append(text)
            chars += len(text)
            if chars > 1 << 19:
                batches.append([])
                chars = 0
    spec = resolve(tokenizer, Path(tempfile.gettempdir()) / "nemolaunch-benchmark")
    encode = engines.load(engine, spec)
    ready.wait()
    begin = time.monotonic()
    for batch in batches:
        encode(batch, True)
    results.put((begin, time.monotonic()))


if __name__ == "__main__":
    kind, corpus_, tokenizer_, output_, workers_ = sys.argv[1:6]
    if kind.startswith("library-"):
        library(kind.removeprefix("library-"), corpus_, tokenizer_, int(workers_))
    else:
        {"datatrove": datatrove, "hf-map": hf_map}[kind](corpus_, tokenizer_, output_, int(workers_))
