"""Compute one model's logits in its own process: `python -m nemolaunch.nemo2.logits SIDE MODEL IDS RESULT`.

SIDE is `hf` or `nemo`. IDS is a JSON file of token ids, which the Hugging Face side writes for the text below.
RESULT is the .npy file to write: float32 logits `[tokens, vocabulary]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.loading import loadable

MAX_TOKENS = 256
TEXT = """The harbour lay still in the early morning. Two boats had come back during the night, and the men who
had taken them out were now mending nets on the quay, talking little. A boy counted the boxes: seventeen of herring,
four of cod, one of crabs that nobody had asked for. "It will rain before noon," said the oldest of them, and went on
with his work. By eleven o'clock the first drops fell on the roofs, and the market women covered their stalls.
清晨的港口很安靜。昨夜有兩艘漁船回來，船員們正在碼頭上補網，沒有人多說話。一個男孩數著箱子：十七箱鯡魚、四箱鱈魚，
還有一箱沒有人訂的螃蟹。年紀最大的那位說：「中午以前會下雨。」說完又低頭做事。
def area(width, height):
    return width * height  # in square metres
"""


def main(side: str, model: str, ids: str, result: str) -> None:
    """Compute logits and save them."""
    import numpy as np

    compute = {"hf": hf_logits, "nemo": nemo_logits}[side]
    if side == "hf":
        Path(ids).write_text(json.dumps(text_ids(Path(model))))
    np.save(result, compute(Path(model), json.loads(Path(ids).read_text())).numpy())


def text_ids(folder: Path) -> list[int]:
    """Return the token ids of the text, by a model's tokenizer."""
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"][:MAX_TOKENS])


def hf_logits(folder: Path, ids: list[int]) -> Any:
    """Return the logits of transformers' model, `[tokens, vocabulary]`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    family = bidirectional.family_of(hf_folder.read_config(folder / "config.json"))
    with loadable(folder) as readable:
        if family is not None and bidirectional.is_ours(folder, family):
            model = AutoModelForMaskedLM.from_pretrained(readable, trust_remote_code=True, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(readable, **options)
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits[0].float()


def nemo_logits(checkpoint: Path, ids: list[int]) -> Any:
    """Return the logits of NeMo's model, `[tokens, vocabulary]`."""
    import torch

    tokens = torch.tensor([ids])
    positions = torch.arange(len(ids))[None]
    model = load(checkpoint).module.float().eval()
    with torch.inference_mode():
        return model(tokens, positions, attention_mask=None)[0].float()


def load(checkpoint: Path) -> Any:
    """Return the Lightning model of a checkpoint on the CPU, loaded by NeMo."""
    from nemolaunch import cpu
    from nemolaunch.nemo2 import patches

    patches.apply()
    cpu.install()
    from nemo.lightning.io.connector import ModelConnector

    with _contexts_fit_the_cpu():
        return ModelConnector(checkpoint).nemo_load(checkpoint)[0]


@contextmanager
def _contexts_fit_the_cpu() -> Iterator[None]:
    """Adapt models loaded from a GPU run's context to what can be built on a CPU."""
    from nemo.lightning.io import api

    from nemolaunch.cpu.adapt import adapt_model

    original = api.load_context

    def load_context(*args: Any, **kwargs: Any) -> Any:
        loaded = original(*args, **kwargs)
        if hasattr(loaded, "configure_model") and hasattr(loaded, "config"):
            adapt_model(loaded.config)
        return loaded

    api.load_context = load_context
    try:
        yield
    finally:
        api.load_context = original


if __name__ == "__main__":
    main(*sys.argv[1:])
