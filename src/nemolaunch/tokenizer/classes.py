"""The class by which transformers loads a tokenizer, and whether its folder brings that class as code.

Standard library only. The names of transformers' own classes are in `classes.json`, which
`python -m nemolaunch.tokenizer.classes_dump` rewrites.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemolaunch.tokenizer import files

GENERIC = "PreTrainedTokenizer"
# What transformers 5 calls its generic class
GENERIC_OF_V5 = "TokenizersBackend"
_ONE = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BERT = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"
}  # fmt: skip
_ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip
# Roles that a class fills on its own, for classes that add no other tokens to a `tokenizer.json`
ROLES: dict[str, dict[str, str]] = {
    GENERIC: {},
    "BertTokenizer": _BERT,
    "BloomTokenizer": {**_LLAMA, "pad_token": "<pad>"},
    "CodeGenTokenizer": _ONE,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "GPT2Tokenizer": _ONE,
    "GPTNeoXTokenizer": _ONE,
    "GemmaTokenizer": {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"
    },
    "LlamaTokenizer": _LLAMA,
    "Qwen2Tokenizer": {
        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"
    },
    "RobertaTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": _ROBERTA,
}  # fmt: skip


@functools.cache
def _known() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "classes.json").read_text("utf-8"))
    return content


def class_of(folder: Path) -> str | None:
    """Return the name of the tokenizer's class without `Fast`; None if no file tells it.

    As in transformers' `AutoTokenizer`: the tokenizer's configuration, the model's, or the type of the model.
    """
    own, model = files.read_json(folder / files.CONFIG), files.read_json(folder / files.MODEL_CONFIG)
    name = own.get("tokenizer_class") or model.get("tokenizer_class")
    if not name:
        name = _known()["model_types"].get(model.get("model_type"))
    return str(name).removesuffix("Fast") if name else None


def is_of_v5(config: dict[str, Any]) -> bool:
    """Return whether transformers 5 wrote a `tokenizer_config.json`.

    Its `tokenizer.json` is complete, so the generic class loads it; a class of transformers 4 would add to it what
    it adds by default.
    """
    return (
        config.get("tokenizer_class") == GENERIC_OF_V5
        or config.get("backend") == "tokenizers"
        or isinstance(config.get("extra_special_tokens"), list)
    )


def is_told(folder: Path) -> bool:
    """Return whether a folder's files tell transformers a class, its own or one of the folder's code."""
    own, model = files.read_json(folder / files.CONFIG), files.read_json(folder / files.MODEL_CONFIG)
    return bool(own.get("tokenizer_class") or model.get("tokenizer_class") or model.get("model_type"))


def code_of(folder: Path) -> str | None:
    """Return the code that has to run to load a tokenizer, such as `tokenization_own.OwnTokenizer`; None if none.

    Where transformers has a class of that name itself, it uses its own unless it may trust the folder's.
    """
    name, known = class_of(folder), _known()
    for reference in _references(folder):
        if name is None or name not in known["classes"]:
            return reference
    own, model = files.read_json(folder / files.CONFIG), files.read_json(folder / files.MODEL_CONFIG)
    if own.get("tokenizer_class") or not files.defines_tokens(folder):
        return None
    needed = _auto_map(model).get("AutoConfig")  # to find the class of the tokenizer
    types = {*known["model_types"], *known["other_types"]}
    return str(needed) if needed and model.get("model_type") not in types else None


def own_code(folder: Path) -> str | None:
    """Return the tokenizer's own code, which transformers runs if it may trust it, needed or not; None if none."""
    return next(_references(folder), None) or code_of(folder)


def _references(folder: Path) -> Iterator[str]:
    """Yield what the configurations name as the code of the tokenizer."""
    own, model = files.read_json(folder / files.CONFIG), files.read_json(folder / files.MODEL_CONFIG)
    found = own.get("auto_map")
    given = found if isinstance(found, list) else _auto_map(own).get("AutoTokenizer")
    if given is None and not own.get("tokenizer_class"):
        given = _auto_map(model).get("AutoTokenizer")
    names = given if isinstance(given, list) else [given]
    yield from (str(name) for name in reversed(names) if name)


def _auto_map(content: dict[str, Any]) -> dict[str, Any]:
    found = content.get("auto_map")
    return found if isinstance(found, dict) else {}
