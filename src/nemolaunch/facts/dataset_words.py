"""What the words of `--dataset-dir` name on this machine: which are paths, what their YAML files hold."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from nemolaunch.data import blend, stream_spec
from nemolaunch.data.blend import YAML_ENDINGS, BlendSpec
from nemolaunch.data.stream_spec import REMOTE, StreamSource, StreamSpec
from nemolaunch.system.yaml_faults import fault


def read_blend(words: tuple[str, ...]) -> BlendSpec:
    """Return the blend that words name. Never raises: what cannot be read is `error`."""
    try:
        if _names_file(words):
            return blend.from_yaml(*_read_yaml(words))
    except ValueError as error:
        return BlendSpec(error=str(error))
    return _parse(words)


def read_stream(words: tuple[str, ...]) -> StreamSpec:
    """Return the stream that words name, with absolute paths: training starts in another folder.

    Never raises: what cannot be read is `error`.
    """
    file = Path()
    try:
        if _names_file(words):
            file, content = _read_yaml(words)
            spec = stream_spec.from_yaml(file, content)
        else:
            spec = stream_spec.from_blend(_parse(words))
    except ValueError as error:
        return StreamSpec(error=str(error))
    return dataclasses.replace(spec, sources=tuple(_absolute(source, file) for source in spec.sources))


def _names_file(words: tuple[str, ...]) -> bool:
    return any(word.endswith(YAML_ENDINGS) and not os.path.isdir(word) for word in words)


def _parse(words: tuple[str, ...]) -> BlendSpec:
    spec = blend.parse(words, os.path.exists)
    sources = tuple((weight, os.path.expanduser(path)) for weight, path in spec.sources)
    return dataclasses.replace(spec, sources=sources)


def _read_yaml(words: tuple[str, ...]) -> tuple[Path, Any]:
    """Read the YAML file that has to be the only word. Raises ValueError with what is wrong."""
    import yaml

    name = next(word for word in words if word.endswith(YAML_ENDINGS))
    if len(words) > 1:
        other = next((word for word in words if word != name), name)
        raise ValueError(f"{name} describes a complete blend; give it alone, without {other}")
    path = Path(name).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {fault(error)}") from None
    return path, _with_home(content)


def _with_home(content: Any) -> Any:
    """Expand `~` in the paths of the sources."""
    entries = content.get("sources") if isinstance(content, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            entry["path"] = os.path.expanduser(entry["path"])
        elif isinstance(entry, dict) and isinstance(entry.get("path"), list):
            entry["path"] = [os.path.expanduser(str(path)) for path in entry["path"]]
    return content


def _absolute(source: StreamSource, file: Path) -> StreamSource:
    """Make paths absolute, and a dataset's name if it is a folder, beside the YAML file or here."""
    paths = tuple(path if path.startswith(REMOTE) else _absolute_path(path) for path in source.paths)
    dataset = source.dataset
    if dataset is not None:
        folders = (_absolute_path(path) for path in (blend.beside(file, dataset), dataset))
        dataset = next((folder for folder in folders if os.path.isdir(folder)), dataset)
    return dataclasses.replace(source, paths=paths, dataset=dataset)


def _absolute_path(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
