"""Compute one model's logits in its own process: `python -m nemolaunch.nemo2.logits SIDE MODEL IDS RESULT TOKENIZER`.

SIDE is `hf` or `megatron`. IDS is a JSON file of token ids, which the Hugging Face side writes for the text below, by
the tokenizer in the folder TOKENIZER. RESULT is the .npy file to write: float32 logits `[tokens, vocabulary]`.

The exit code is `UNABLE` if the model cannot be built or run here. It is another one if the checkpoint cannot be loaded
into the model, which is a fault of the checkpoint. The reason of either is written to RESULT + `REASON`.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf.transformers_model import load_model
from nemolaunch.errors import NemolaunchError
from nemolaunch.tokenizer import library
from nemolaunch.trust.checkpoint import check_checkpoint

UNABLE = 3
REASON = ".reason"
LOADING = "load_checkpoint"  # the function of NeMo's strategy that reads the weights into the model
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


def main(side: str, model: str, ids: str, result: str, tokenizer: str, *flags: str) -> int:
    """Compute logits and save them. Return the exit code."""
    import numpy as np

    compute = {"hf": hf_logits, "megatron": nemo_logits}[side]
    try:
        if side == "hf":
            Path(ids).write_text(json.dumps(text_ids(Path(tokenizer), library.FLAG in flags)))
        elif library.FLAG not in flags:
            check_checkpoint(Path(model))
        logits = compute(Path(model), json.loads(Path(ids).read_text()))
    except NemolaunchError as error:
        Path(result + REASON).write_text(str(error))
        return 1
    except Exception as error:
        Path(result + REASON).write_text(f"{type(error).__name__}: {' '.join(str(error).split())}")
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        return 1 if LOADING in frames else UNABLE
    np.save(result, logits.numpy())
    return 0


def text_ids(folder: Path, trust_remote_code: bool) -> list[int]:
    """Return the token ids of the text, by the tokenizer in a folder."""
    return list(library.load(folder, trust_remote_code=trust_remote_code)(TEXT)["input_ids"][:MAX_TOKENS])


def hf_logits(folder: Path, ids: list[int]) -> Any:
    """Return the logits of transformers' own model of a folder, `[tokens, vocabulary]`."""
    import torch

    model = load_model(folder)
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float()


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
    sys.exit(main(*sys.argv[1:]))
