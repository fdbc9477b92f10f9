"""Merging several `.bin/.idx` pairs into one, at the speed of the disk."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch.data.blend import as_yaml
from nemolaunch.data.index import IndexFile
from nemolaunch.data.old_index_caches import remove_old_caches
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import locks
from nemolaunch.system.atomic_files import write_json, write_text
from nemolaunch.system.replacement import complete_files, discard, put_files
from nemolaunch.tokenization import manifest
from nemolaunch.tokenization.files import append_range
from nemolaunch.tokenization.index import BLOCK, Header, Index, read_header, read_index, write_index
from nemolaunch.tokenization.manifest import Merged

SHARD = re.compile(r"^(?P<name>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})(?P<rest>_.+)$")


def expand(inputs: list[str]) -> list[Path]:
    """Return the prefixes that prefixes, `.idx`/`.bin` files, folders and globs name, in order.

    Raises UsageError if one of them names nothing.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given).expanduser()
        matches = sorted(path.glob("*.idx")) if path.is_dir() else []
        if not matches:  # also if Megatron's folder of indices has the name of the prefix
            stem = path.with_name(re.sub(r"\.(idx|bin)$", "", path.name))
            matches = sorted(stem.parent.glob(stem.name + ".idx"))
        if not matches:
            raise UsageError(f"{given}: there is no .idx file of that name")
        found.extend(m.with_suffix("") for m in matches)
    return list(dict.fromkeys(found))


def merge(
    inputs: list[Path],
    output: Path,
    *,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> Merged:
    """Join pairs in the given order. `report` is called with bytes copied.

    Raises UsageError, before anything is written, if dtypes or tokenizers differ, if a shard is missing or
    duplicated, or if the output exists; NemolaunchError if an input is damaged or the totals are not the sum.
    """
    if output in inputs:
        raise UsageError(f"--output {output} is one of the inputs")
    if manifest.idx_of(output).exists() and not overwrite:
        raise UsageError(f"{output}.idx exists; use --overwrite to replace it")
    headers = [_checked_header(prefix) for prefix in inputs]
    _same([(p, h.dtype) for p, h in zip(inputs, headers, strict=True)], "dtype")
    records = [manifest.read_for_merge(prefix) for prefix in inputs]
    _same_tokenizer(inputs, records)
    _complete(inputs)
    output.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process is writing {output}; wait for it, or use another --output"
    with locks.held(output.with_name(f".{output.name}.lock"), busy, wait_s=locks.STALE_S + 5.0):
        folder = output.with_name(f"{output.name}.merging")
        if complete_files(folder) and not overwrite:  # a kill came while its files got their final names
            raise UsageError(f"{output}.idx exists; use --overwrite to replace it")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            return _merge(inputs, headers, records, output, folder, report)
        finally:
            discard(folder)


def _checked_header(prefix: Path) -> Header:
    with IndexFile(str(prefix)):
        return read_header(manifest.idx_of(prefix))


def _same(values: list[tuple[Path, Any]], what: str) -> None:
    first_path, first = values[0]
    for path, value in values:
        if value != first:
            raise UsageError(
                f"{what} differs: {first} in {first_path}, {value} in {path}; they cannot be merged"
            )


def _same_tokenizer(inputs: list[Path], records: list[dict[str, Any] | None]) -> None:
    for prefix, record in zip(inputs, records, strict=True):
        if record is None and any(records):
            raise UsageError(
                f"{prefix} has no manifest, so its tokenizer is unknown, while other inputs have one"
            )
    if all(records):
        known = [(p, r["tokenizer"]) for p, r in zip(inputs, records, strict=True) if r]
        _same([(p, t["eod_id"]) for p, t in known], "the end-of-document id")
        _same([(p, t["digest"][:16]) for p, t in known], "the tokenizer (its hash)")


def _complete(inputs: list[Path]) -> None:
    """Raise UsageError if all inputs are shards of one run, and not all of its shards in order."""
    found = [SHARD.match(prefix.name) for prefix in inputs]
    if not all(found):
        return
    runs = sorted({f"{m['name']} … {m['rest']}" for m in found if m})
    if len(runs) > 1:
        raise UsageError(f"the inputs are shards of several outputs: {', '.join(runs)}; merge one at a time")
    numbers = [(int(m["number"]), int(m["of"])) for m in found if m]
    of = numbers[0][1]
    if numbers != [(i, of) for i in range(1, of + 1)]:
        have = ", ".join(f"{i}/{n}" for i, n in numbers)
        raise UsageError(
            f"the inputs are shards {have}; all of 1/{of} to {of}/{of} are needed, once each, in order"
        )


def _merge(
    inputs: list[Path],
    headers: list[Header],
    records: list[dict[str, Any] | None],
    output: Path,
    folder: Path,
    report: Callable[[int], None],
) -> Merged:
    with open(folder / "bin", "wb", buffering=0) as out:
        for prefix in inputs:
            with open(manifest.bin_of(prefix), "rb", buffering=0) as part:
                size = os.fstat(part.fileno()).st_size
                append_range(part.fileno(), out.fileno(), size)
                report(size)
        os.fsync(out.fileno())
    with open(folder / "seq", "wb") as lengths, open(folder / "doc", "wb") as per_document:
        for prefix in inputs:
            _copy_counts(read_index(manifest.idx_of(prefix)), lengths, per_document)
    written = write_index(folder / "idx", headers[0].dtype, folder / "seq", folder / "doc")
    merged = _totals(headers, written, folder, output)
    _place(inputs, records, merged, output, folder)
    return merged


def _copy_counts(index: Index, lengths: Any, per_document: Any) -> None:
    import numpy as np

    for start in range(0, len(index.lengths), BLOCK):
        lengths.write(index.lengths[start : start + BLOCK].tobytes())
    for start in range(0, index.header.documents, BLOCK):
        counts = np.diff(index.documents[start : start + BLOCK + 1])
        per_document.write(counts.astype(np.int32).tobytes())


def _totals(headers: list[Header], written: Header, folder: Path, output: Path) -> Merged:
    """Count what was written again, and compare it with the sum of the inputs."""
    os.link(folder / "bin", folder / "check.bin")
    os.link(folder / "idx", folder / "check.idx")
    with IndexFile(str(folder / "check")) as index:
        tokens = index.num_tokens
    expected = (sum(h.sequences for h in headers), sum(h.documents for h in headers))
    if (written.sequences, written.documents) != expected:
        raise NemolaunchError(
            f"merged {written.sequences} sequences, {written.documents} documents, not {expected}"
        )
    return Merged(output, written.documents, written.sequences, tokens)


def _place(
    inputs: list[Path], records: list[dict[str, Any] | None], merged: Merged, output: Path, folder: Path
) -> None:
    files = [(folder / "bin", manifest.bin_of(output))]
    known = [r for r in records if r]
    if known:
        write_json(folder / "manifest.json", manifest.joined(known, inputs, merged))
        files.append((folder / "manifest.json", manifest.path_of(output)))
    put_files([*files, (folder / "idx", manifest.idx_of(output))], folder)  # readers open the .idx first
    remove_old_caches(str(output))


def write_blend(inputs: list[Path], output: Path, *, overwrite: bool = False) -> Path:
    """Write `OUTPUT.yaml`, a blend that reads the inputs as one data set.

    Raises the same errors as `merge`.
    """
    path = output if output.suffix in (".yaml", ".yml") else output.with_name(output.name + ".yaml")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; use --overwrite to replace it")
    headers = [_checked_header(prefix) for prefix in inputs]
    _same([(p, h.dtype) for p, h in zip(inputs, headers, strict=True)], "dtype")
    _same_tokenizer(inputs, [manifest.read_for_merge(prefix) for prefix in inputs])
    sources = []
    for prefix in inputs:
        with IndexFile(str(prefix)) as index:
            if index.num_tokens:
                sources.append((index.num_tokens, str(prefix.resolve())))
    if not sources:
        raise UsageError("all inputs are empty: none has a token")
    write_text(path, as_yaml(sources))
    return path
