"""Tokenising text files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.tokenizer.library import cache_folder

if TYPE_CHECKING:
    from nemolaunch.tokenization.request import EngineMismatch, Result, Tick, TokenizeRequest
    from nemolaunch.tokenization.units.run import Executor

log = logging.getLogger("nemolaunch")

Tell = Callable[[str], None]


def tokenize(
    inputs: str | Path | Sequence[str | Path],
    *,
    tokenizer: str | Path,
    prefix: str | Path,
    text_keys: Sequence[str] = ("text",),
    format: str = "auto",
    eod_token: str | None = None,
    trust_remote_code: bool = False,
    validation_share: float | None = None,
    on_error: str = "stop",
    engine: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    tell: Tell = log.info,
) -> Result:
    """Tokenise text files into Megatron `.bin/.idx`, byte for byte as Megatron-LM's `preprocess_data.py --append-eod`.

    An interrupted call is resumed by the same call. The result's `prefixes` can be given to a job as `data`; its
    `manifests` say how many documents and tokens they hold.

    Args:
        inputs: files, folders or globs of JSON Lines, parquet or text, also compressed; paths, or URLs as
            `s3://BUCKET/FOLDER`.
        tokenizer: folder or Hugging Face id of the tokenizer.
        prefix: the output is PREFIX_text_document.bin and .idx, with the key of the text in the name; a path, or
            a URL, to which the files are uploaded at the end.
        text_keys: keys or columns that hold text; each gets an output of its own.
        format: which files of a folder to read: `auto`, `jsonl`, `parquet` or `text`.
        eod_token: ends each document; by default the tokenizer's end-of-sequence token.
        trust_remote_code: run code in the tokenizer's folder, if it has any.
        validation_share: share of the documents, chosen by their hash, that goes to PREFIX_validation_….
        on_error: what to do at a record that is not a document: `stop` or `skip`.
        engine: tokenizer library: `auto`, `hf`, `fastokens` or `gigatoken`; all give the ids of `hf`.
        workers: processes; by default one for each core this process may use.
        overwrite: replace existing outputs.
        tell: takes remarks; logged at level INFO by default.

    Raises:
        UsageError: there is no such input or tokenizer, or the outputs exist already with other contents.
        NemolaunchError: a record is not a document, or the output cannot be written.
    """
    from nemolaunch.tokenization import sources
    from nemolaunch.tokenization.request import TokenizeRequest
    from nemolaunch.tokenization.standby import start_standby
    from nemolaunch.tokenization.tokenizer import resolve

    start_standby(tokenizer)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    files = sources.find([str(path) for path in given], format, tell)
    keys = tuple(dict.fromkeys(text_keys))
    folder, name, url = _output(prefix)
    spec = resolve(
        str(tokenizer), cache_folder(), eod_token=eod_token, trust_remote_code=trust_remote_code, tell=tell
    )
    request = TokenizeRequest(
        sources=files,
        spec=spec,
        folder=folder,
        name=name,
        destination=url,
        keys=keys,
        columns=sources.columns(files, keys, []),
        workers=len(os.sched_getaffinity(0)) if workers is None else workers,
        on_error=on_error,
        overwrite=overwrite,
        **({} if validation_share is None else sources.split_by_hash(validation_share)),
    )
    return run_request(request, engine, tell=tell)


def _output(prefix: str | Path) -> tuple[Path, str, str | None]:
    """Return the folder and the first part of the name of an output, and the URL of the folder it is uploaded to."""
    from nemolaunch.system import remote
    from nemolaunch.tokenization import destination

    if not remote.is_url(prefix):
        path = Path(prefix).expanduser()
        return path.parent, path.name, None
    url, _, name = str(prefix).rpartition("/")
    return destination.staging_folder(url, cache_folder()), name, url


def run_request(
    request: TokenizeRequest,
    engine: str,
    *,
    tell: Tell,
    report: Callable[[Tick], None] = lambda tick: None,
    execute: Executor | None = None,
) -> Result:
    """Choose the engine, which is tried once for each tokenizer, and tokenise, on this machine by default."""
    from nemolaunch.tokenization import destination, proof, sample
    from nemolaunch.tokenization.run import run

    if request.destination is not None and (there := destination.already_there(request)) is not None:
        return there
    cache = cache_folder()

    def texts() -> list[str]:
        tell(f"testing engine {engine} with this tokenizer (once)")
        return sample.texts(request.sources, request.columns)

    def distrust(error: EngineMismatch) -> None:
        tell(f"{error}; starting over with the reference, hf")
        proof.remember(chosen.engine, chosen.spec, cache, str(error))

    chosen = replace(request, engine=proof.choose(engine, request.spec, cache, texts, tell))
    result = run(chosen, report, distrust, execute)
    return (
        replace(result, urls=destination.send(request, tell)) if request.destination is not None else result
    )
