"""Reader of the header of a Megatron `.idx` file, in constant time and memory. Standard library only.

Layout (megatron-core, `datasets/indexed_dataset.py`): 9 bytes magic, u64 version, u8 dtype code, u64 sequence
count n, u64 document index count d, n int32 lengths, n int64 byte pointers, d int64 document indices, all
little-endian. Pointers are cumulative, so the number of tokens before any sequence takes one read.
"""

from __future__ import annotations

import os
import struct
from types import TracebackType

from nemolaunch.errors import NemolaunchError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TOKEN_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 7: 4, 8: 2}
# Of the standard library's `array`; codes 6 and 7 are floats
ID_CODES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}


class IndexFile:
    """One `.idx` and its `.bin`.

    Attributes:
        num_sequences, num_documents: counts.
        num_tokens: tokens in the `.bin`.
        token_bytes: bytes per token id.
        id_code: type of a token id, for the standard library's `array`; None if the data are floats.
        size_bytes, bin_bytes: sizes of the two files.

    Raises:
        NemolaunchError: if a file is missing, unreadable or truncated, or the two do not match.
    """

    def __init__(self, prefix: str) -> None:
        self.path = prefix + ".idx"
        try:
            bin_bytes = os.path.getsize(prefix + ".bin")
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise NemolaunchError(f"cannot read {error.filename}: {error.strerror}") from None
        except ValueError as error:  # a name that no file can have
            raise NemolaunchError(f"cannot read {self.path!r}: {error}") from None
        try:
            self._read_header(prefix, bin_bytes)
        except BaseException:
            os.close(self._file)
            raise

    def _read_header(self, prefix: str, bin_bytes: int) -> None:
        raw = self.read(0, HEADER.size)
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            raise NemolaunchError(f"{self.path} is not a Megatron index: it does not start with {MAGIC!r}")
        _, version, code, self.num_sequences, num_indices = HEADER.unpack(raw)
        if version != 1 or code not in TOKEN_BYTES:
            raise NemolaunchError(
                f"{self.path} has version {version}, dtype code {code}: expected version 1, code 1 to 8"
            )
        self.token_bytes, self.id_code = TOKEN_BYTES[code], ID_CODES.get(code)
        self.num_documents = num_indices - 1
        size = HEADER.size + 12 * self.num_sequences + 8 * num_indices
        found = os.fstat(self._file).st_size
        if found != size:
            raise NemolaunchError(
                f"{self.path} has {found} bytes, but its header says {size}: it is truncated"
            )
        self.size_bytes, self.bin_bytes = size, bin_bytes
        self.num_tokens = bin_bytes // self.token_bytes
        if self._bytes_before(self.num_sequences) != bin_bytes:
            raise NemolaunchError(
                f"{prefix}.bin has {bin_bytes} bytes, but its index says "
                f"{self._bytes_before(self.num_sequences)}: the two files do not match"
            )

    def _bytes_before(self, sequence: int) -> int:
        """Return the bytes of the `.bin` before a sequence; all of them for `num_sequences`."""
        if self.num_sequences == 0:
            return 0
        last = min(sequence, self.num_sequences - 1)
        pointer = int.from_bytes(self.read(HEADER.size + 4 * self.num_sequences + 8 * last, 8), "little")
        if sequence < self.num_sequences:
            return pointer
        return pointer + int.from_bytes(self.read(HEADER.size + 4 * last, 4), "little") * self.token_bytes

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the `.idx`."""
        try:
            return os.pread(self._file, size, start)
        except OSError as error:
            raise NemolaunchError(f"cannot read {self.path}: {error.strerror}") from None

    def tokens_before(self, sequence: int) -> int:
        """Return the number of tokens before a sequence; in all of them for `num_sequences`."""
        return self._bytes_before(sequence) // self.token_bytes

    def document_end(self, document: int) -> int:
        """Return the number of tokens up to the end of a document, counted from 0."""
        start = HEADER.size + 12 * self.num_sequences + 8 * (document + 1)
        return self.tokens_before(int.from_bytes(self.read(start, 8), "little"))

    def __enter__(self) -> IndexFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
