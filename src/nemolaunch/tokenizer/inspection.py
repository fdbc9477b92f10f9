"""A tokenizer as seen from its folder, without the libraries that load it where its files alone are enough."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import read_json
from nemolaunch.system.path_hints import missing_part, nearest
from nemolaunch.tokenizer import classes, completion, files, library
from nemolaunch.tokenizer.fingerprint import file_digests, tokenizer_digest, tokens_digest


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The tokenizer a job names. `folder` is None while it is only an id on a hub.

    Attributes:
        digest: identity of its files, see `nemolaunch.tokenizer.fingerprint`; None if there are none.
        tokens_digest: the same, whichever token the files name as the mask.
        vocab_size: number of entries including added tokens, as `len(tokenizer)`. Like the `words`
            themselves, None if only transformers could find out, and is not installed.
        roles: `bos_token`, `mask_token`, … → the token, for the roles that it has.
        end_id: id of the token that ends texts; None if it has none, or if only transformers could find out.
        code: the code in its folder that has to run to load it, if any.
        has_code: code in its folder that runs if it is trusted, which may not be needed.
        completed: why transformers cannot load it as it is, so that a completed copy is used instead.
        instead: if there is no such folder, the one that was probably meant.
        model_config: the `config.json` beside it, if it is a model's folder.
    """

    source: str
    folder: str | None = None
    vocab_size: int | None = None
    words: frozenset[str] | None = field(default=None, repr=False)
    roles: dict[str, str] = field(default_factory=dict)
    end_id: int | None = None
    digest: str | None = None
    tokens_digest: str | None = None
    model_config: dict[str, Any] | None = None
    error: str | None = None
    instead: str | None = None
    code: str | None = None
    has_code: str | None = None
    completed: str | None = None


def look_at_tokenizer(source: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """Inspect a tokenizer by folder or hub id; a hub id is looked up in the local cache only.

    Args:
        trust_remote_code: whether code in its folder may run, where its vocabulary is known in no other way.
    """
    folder = os.path.abspath(os.path.expanduser(source))
    if not os.path.isdir(folder):
        cached = _cached_snapshot(source)
        if cached is None:
            if source.startswith((".", "/", "~")) or source.count("/") != 1:
                return _nothing_there(source)
            return Tokenizer(source=source)
        folder = cached
    try:
        return _inside(source, Path(folder), trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, NemolaunchError) as error:
        return Tokenizer(source=source, folder=folder, error=f"{folder} has no usable tokenizer: {error}")


def _inside(source: str, folder: Path, trust_remote_code: bool) -> Tokenizer:
    digests = file_digests(folder)
    found = library.vocabulary_of(folder, trust_remote_code=trust_remote_code)
    return Tokenizer(
        source=source,
        folder=str(folder),
        words=frozenset(found.ids) if found else None,
        roles=dict(found.roles) if found else {},
        vocab_size=found.size if found else None,
        end_id=found.end_id if found else None,
        digest=tokenizer_digest(folder, digests),
        tokens_digest=tokens_digest(folder, digests),
        model_config=read_json(folder / "config.json"),
        code=classes.code_of(folder),
        has_code=classes.own_code(folder),
        completed=completion.reason(folder),
    )


def _nothing_there(source: str) -> Tokenizer:
    above = missing_part(source)
    where = f" ({above} does not exist)" if above else ""
    instead = nearest(source, _is_tokenizer)
    return Tokenizer(source=source, error=f"there is no folder {source}{where}", instead=instead)


def _is_tokenizer(path: str) -> bool:
    return files.defines_tokens(Path(path).expanduser())


def _cached_snapshot(hub_id: str) -> str | None:
    """Return the folder of the cached snapshot of `main`, if it has a tokenizer."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except (OSError, ValueError):  # no file can have such a name
        return None
    snapshot = repository / "snapshots" / revision
    return str(snapshot) if files.defines_tokens(snapshot) else None
