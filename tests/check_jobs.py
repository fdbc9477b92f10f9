"""Jobs for the tests of the checks: data, tokenizer and host are valid, so only what a test sets is wrong."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

from nemolaunch.check import check as check
from nemolaunch.data.blend import BlendSpec
from nemolaunch.estimate import estimate
from nemolaunch.facts import EarlierRun, Facts, Host
from nemolaunch.facts.data_files import DataFile
from nemolaunch.facts.dataset_words import read_blend, read_stream
from nemolaunch.facts.stream_sources import SourceFacts
from nemolaunch.findings import Finding
from nemolaunch.job import Job
from nemolaunch.planning import judged
from nemolaunch.resolve import Resolved, resolve
from nemolaunch.resolve.model import model_of
from nemolaunch.tokenizer.inspection import Tokenizer

TOKENIZER = str(Path(__file__).parents[1] / "examples" / "tokenizer")
# Enough for a step of any batch in the tests
TOKENS = 10**12
VOCABULARY = 32000


def write_data(folder: Path, num_tokens: int = 100_000, num_documents: int = 100, end: int = 0) -> str:
    """Write a `.bin/.idx` pair in Megatron's format, of zeros up to the end of each document. Return its prefix."""
    length = num_tokens // num_documents
    document = bytes(2 * (length - 1)) + struct.pack("<H", end)
    (folder / "text_document.bin").write_bytes(document * num_documents)
    with open(folder / "text_document.idx", "wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, num_documents, num_documents + 1))
        file.write(struct.pack(f"<{num_documents}i", *[length] * num_documents))
        file.write(struct.pack(f"<{num_documents}q", *range(0, 2 * length * num_documents, 2 * length)))
        file.write(struct.pack(f"<{num_documents + 1}q", *range(num_documents + 1)))
    return str(folder / "text_document")


def facts(job: Job, **changes: Any) -> Facts:
    """Return what `look` would find if nothing were wrong."""
    streams = job.data.data_mode == "stream"
    asked = BlendSpec() if streams else read_blend(job.data.dataset_dir)
    stream = read_stream(job.data.dataset_dir) if streams else None
    data = tuple(
        DataFile(
            prefix=path,
            source=place,
            weight=weight,
            num_sequences=10**6,
            num_documents=10**6,
            num_tokens=TOKENS,
            split_tokens=(TOKENS, TOKENS // 500, TOKENS // 500),
            token_bytes=2,
        )
        for place, (weight, path) in enumerate(asked.sources)
    )
    found = Facts(
        host=Host(num_cpus=8, memory_bytes=2**36),
        data=data,
        tokenizer=Tokenizer(
            source="/tokenizer",
            folder="/tokenizer",
            vocab_size=VOCABULARY,
            words=frozenset({"<s>", "</s>", "<|reserved_0|>", "<|reserved_1|>"}),
            roles={"bos_token": "<s>", "eos_token": "</s>"},
            end_id=1,
        ),
        run=EarlierRun(folder=f"/runs/{job.launch.experiment}"),
        asked=asked,
        stream=stream,
        sources=tuple(SourceFacts(num_files=1000) for _ in stream.sources) if stream else (),
    )
    return dataclasses.replace(found, **changes)


def job(model_name: str = "llama3_8b", **values: Any) -> Job:
    """Return a job on Slurm whose data exists."""
    defaults = {"executor": "slurm", "dataset_dir": ("/data/text_document",), "hf_model_id": "/tokenizer"}
    defaults |= {"account": "physics", "partition": "gpu"}
    return Job().with_values(**{**defaults, "model_name": model_name, **values})


def resolved(asked: Job, **changed_facts: Any) -> Resolved:
    """Return the resolved job."""
    found = facts(asked, **changed_facts)
    return resolve(asked, model_of(asked, found.tokenizer), found)


def findings(
    model_name: str = "llama3_8b", *, changed: dict[str, Any] | None = None, **values: Any
) -> list[Finding]:
    """Everything the checks say about a job; `changed` are facts that differ from a sound machine's."""
    found = resolved(job(model_name, **values), **(changed or {}))
    return judged(found, estimate(found), starts=True)


def codes(*args: Any, **values: Any) -> list[str]:
    """Return the codes of `findings`."""
    return [finding.code for finding in findings(*args, **values)]
