"""Which names a pickle, or a file of `torch.save`, would import. Nothing is imported or called."""

from __future__ import annotations

import _compat_pickle
import contextlib
import io
import pickle
import pickletools
import zipfile
from typing import IO, Any, ClassVar

ZIP_START = b"PK\x03\x04"
SCRIPT = "constants.pkl"  # of a TorchScript program, which torch.load runs
ENCODE = ("_codecs", "encode")
STREAM = ("_io", "BytesIO")
REBUILD = ("torch._utils", "_rebuild_tensor_v2")
MOST_PICKLE_BYTES = 1 << 28  # unpacked: the largest are lists of the chunks of every tensor

Names = set[tuple[str, str]]


class NotAsSaved(ValueError):
    """A file that torch.save did not write, and which torch.load may read in another way than it is read here."""


def names_in(file: IO[bytes]) -> Names:
    """Return what a pickle names. Raises whatever `pickle` raises if it is damaged."""
    unpickler = _Names(file)
    unpickler.load()
    return unpickler.found


def looked_at(data: bytes) -> tuple[Names, Names, set[str]]:
    """Return what a pickle names, what of that it calls, and the texts in it. Raises whatever `pickle` raises."""
    unpickler = _Names(io.BytesIO(data))
    unpickler.load()
    return (
        unpickler.found,
        unpickler.called,
        {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)},
    )


def names_tried(data: bytes) -> Names:
    """Return what unpickling some bytes would import, up to where they are not a pickle."""
    if data.startswith(ZIP_START):
        return names_in_saved(io.BytesIO(data))
    unpickler = _Names(io.BytesIO(data))
    with contextlib.suppress(Exception):  # it need not be a pickle, and a damaged one can raise anything
        unpickler.load()
    return unpickler.found


def names_in_saved(file: IO[bytes], *, nested: bool = False) -> Names:
    """Return what a file of `torch.save` names; with `nested`, also what its storages do if they are pickles.

    Only its zip format, in exactly the form that torch writes, is read: torch decides by the first four bytes whether
    a file is one, and takes any other for several pickles in a row.

    Raises:
        NotAsSaved: it has another form.
        Exception: a damaged pickle can raise anything.
    """
    if file.read(len(ZIP_START)) != ZIP_START:
        raise NotAsSaved("it is not in the format that torch.save has written since version 1.6")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if archive.comment or min((entry.header_offset for entry in entries), default=1) != 0:
                raise NotAsSaved("there is something before or after its zip archive")
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names):
                raise NotAsSaved("its zip archive has two entries of one name")
            if any(name.endswith(SCRIPT) for name in names):
                raise NotAsSaved("it is a TorchScript program")
            pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
            found = {name for entry in pickles for name in _inside(archive, entry, nested)}
            for entry in entries if nested else ():
                if "/data/" in entry.filename:
                    found |= names_tried(archive.read(entry))
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise NotAsSaved(f"its zip archive is damaged: {error}") from error


def _inside(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, nested: bool) -> Names:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MOST_PICKLE_BYTES:
        raise NotAsSaved(f"{entry.filename} is compressed, or has {entry.file_size:,} bytes")
    unpickler = _Names(io.BytesIO(archive.read(entry)), nested=nested)
    unpickler.load()
    return unpickler.found


class _Names(pickle.Unpickler):
    """Collects the names that would be imported, and puts stand-ins in their place."""

    def __init__(self, file: IO[bytes], *, nested: bool = False) -> None:
        super().__init__(file)
        self.found: Names = set()
        self.called: Names = set()
        self._stand_ins: dict[tuple[str, str], Any] = {ENCODE: _encoded, STREAM: self._stream()}
        if nested:
            self._stand_ins[REBUILD] = self._rebuilt

    def find_class(self, module: str, name: str) -> Any:
        # torch.save writes the names that Python 2 had, and unpickling translates them
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        self.found.add((module, name))
        named = {"calls": self.called, "named": (module, name)}
        return self._stand_ins.get((module, name)) or type("Named", (_Nothing,), named)

    def persistent_load(self, pid: Any) -> Any:
        return None

    def _stream(self) -> type:
        return type("Stream", (_Stream,), {"found": self.found, "calls": self.called, "named": STREAM})

    def _rebuilt(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> None:
        """Refuse a tensor that is a part of its storage, which would not be the bytes that are looked at."""
        if offset != 0 or stride not in ((), (1,)):
            self.found.add(("torch", "Tensor of a part of a storage"))


def _encoded(text: Any, encoding: Any = None) -> Any:
    """Return the bytes that a pickle of protocol 2 writes as text."""
    return text.encode("latin1") if isinstance(text, str) and encoding == "latin1" else _Nothing()


class _Recording(type):
    """Notes which classes are called, rather than only instantiated as pickle does it for most objects."""

    calls: Names
    named: tuple[str, str]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        cls.calls.add(cls.named)
        return cls.__new__(cls, *args, **kwargs)  # type: ignore[arg-type]


class _Nothing(metaclass=_Recording):
    """Stands for whatever a pickle names."""

    calls: ClassVar[Names] = set()
    named = ("", "")

    def __new__(cls, *args: Any, **kwargs: Any) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> _Nothing:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __hash__(self) -> int:
        return id(self)


class _Stream(_Nothing):
    """Stands for a stream of bytes, which Transformer Engine loads as a file of `torch.save`."""

    found: Names

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        for value in args:
            cls._look(value)
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self._look(state[0] if isinstance(state, tuple) and state else state)

    @classmethod
    def _look(cls, content: Any) -> None:
        cls.found |= (
            names_tried(content) if isinstance(content, bytes) else {("io", "BytesIO of something unknown")}
        )
