"""Texts that another program hands over, one by one, as a `.bin/.idx` pair with a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.tokenization import proof
from nemolaunch.tokenization.assemble import SAVE_BYTES, Assembler, OutputProgress
from nemolaunch.tokenization.flow import Rechecker, setup_of
from nemolaunch.tokenization.output import EncodedPiece, Output
from nemolaunch.tokenization.records import Value
from nemolaunch.tokenization.request import EngineMismatch, TokenizeRequest
from nemolaunch.tokenization.run import PIECE_BYTES, finish
from nemolaunch.tokenization.sources import InputFile
from nemolaunch.tokenization.tokenizer import resolve
from nemolaunch.tokenization.units.inline import LockOfThisMachine
from nemolaunch.tokenization.work import Worker


class TextWriter:
    """Writer of `PREFIX_KEY_document.bin` and `.idx`, which appear complete when it is closed without an error.

    The bytes are those that `nemolaunch tokenize` writes for a file with the same texts.

    Args:
        source: where the texts are from, for the manifest.
        engine: `auto`, `hf`, `fastokens` or `gigatoken`; all give the ids of `hf`.
    """

    def __init__(
        self,
        prefix: Path,
        *,
        tokenizer: str,
        cache: Path,
        source: str,
        key: str = "text",
        engine: str = "auto",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        import xxhash

        spec = resolve(tokenizer, cache, tell=tell)
        self.request = TokenizeRequest(
            sources=[InputFile(f"rows://{source}", "rows", 0, 0)],
            spec=spec,
            folder=prefix.parent.absolute(),
            name=prefix.name,
            keys=(key,),
            columns=((key,),),
            engine=proof.choose(engine, spec, cache, lambda: [], tell),
        )
        self.folder = self.request.work_folder
        shutil.rmtree(self.folder, ignore_errors=True)  # of an attempt that was killed
        self.folder.mkdir(parents=True)
        self.worker = Worker(setup_of(self.request, self.folder), LockOfThisMachine())
        self.check = Rechecker(self.request).compare
        self.digest: Any = xxhash.xxh3_128()
        self.bytes = 0
        progress = OutputProgress.read(self.folder / "progress.json", 1)
        self.assembler = Assembler(self.folder, progress, self.request.sources, SAVE_BYTES)
        self.assembler.__enter__()
        self._begin_piece()

    def _begin_piece(self) -> None:
        self.worker.part = EncodedPiece(self.assembler.progress.pieces)
        self.output = Output(self.worker)
        self.waiting = 0

    def add(self, value: Value) -> None:
        """Add a document: its text, or several texts that are its sequences."""
        for text in [value] if isinstance(value, str) else value:
            data = text.encode()
            self.digest.update(data + b"\0")
            self.bytes += len(data)
            self.waiting += len(data)
        self.output.add(value)
        if self.waiting >= PIECE_BYTES:
            self._end_piece()
            self._begin_piece()

    def _end_piece(self) -> None:
        part = self.worker.part
        part.outputs = [self.output.finish()]
        self.check(part)
        self.worker.held[part.number] = [self.output]
        self.worker.place(part.number, self.assembler.offsets(part))
        self.assembler.append(part, 0, (self.request.sources[0].path,), 0)

    def close(self) -> dict[str, Any]:
        """Write the rest. Return the manifest."""
        try:
            self._end_piece()
            self.assembler.save(complete=True)
        except EngineMismatch as error:
            self.discard()
            raise NemolaunchError(f"{error}; use engine='hf'") from None
        self._release()
        source = self.request.sources[0]
        self.request.sources[0] = InputFile(source.path, source.kind, self.bytes, 0)
        (made,) = finish(self.request, self.assembler.progress, {source.path: self.digest.hexdigest()})
        return made

    def discard(self) -> None:
        """Forget what has been written."""
        self._release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _release(self) -> None:
        self.worker.close()
        self.assembler.__exit__()

    @property
    def prefix(self) -> Path:
        """Return the path of the output, without `.bin`."""
        return self.request.prefixes[0]

    def __enter__(self) -> TextWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()
