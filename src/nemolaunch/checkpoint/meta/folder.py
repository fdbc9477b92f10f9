"""Meta's layout of a Llama: `consolidated.*.pth`, one file per process of its training, and `params.json`.

Compared with Hugging Face's form, the tensors have other names, and the rows of query and key projections another
order: Meta rotates neighbouring pairs of a head's channels, Hugging Face pairs the first half with the second.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf.view import ModelView
from nemolaunch.checkpoint.hf.weights import COMPUTED, TorchFilesSource
from nemolaunch.checkpoint.meta.params import config_of, params_of
from nemolaunch.checkpoint.meta.tensors import EMBEDDING, JoinedShards, RotaryOrder, to_halves, to_pairs
from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSink, TensorSource
from nemolaunch.checkpoint.storage.torch_write import TorchSink
from nemolaunch.checkpoint.storage.wrappers import Renamed, same_tensor
from nemolaunch.errors import NemolaunchError, UsageError

PARAMS = "params.json"
SHARDS, FIRST_SHARD = "consolidated.*.pth", "consolidated.00.pth"
HEAD = "output.weight"
HF_HEAD, HF_EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Meta's names -> Hugging Face's; {} is the layer
NAMES = {
    EMBEDDING: HF_EMBEDDING,
    "norm.weight": "model.norm.weight",
    HEAD: HF_HEAD,
    "layers.{}.attention.wq.weight": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.attention.wk.weight": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.attention.wv.weight": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.attention.wo.weight": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
    "layers.{}.feed_forward.w1.weight": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.feed_forward.w2.weight": "model.layers.{}.mlp.down_proj.weight",
    "layers.{}.feed_forward.w3.weight": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
}
LAYER = re.compile(r"\.(\d+)\.")


def is_meta_named(names: Sequence[str] | Mapping[str, object]) -> bool:
    """Return whether tensors have Meta's names."""
    return EMBEDDING in names


def read_params(folder: Path) -> dict[str, Any]:
    """Return the content of `params.json`. Raises `UsageError` if it is missing."""
    path = folder / PARAMS
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {PARAMS}, which describes the model; copy it from the original download"
        )
    content = hf_folder.read_json(path)
    return dict(content.get("model", content))


def read_view(folder: Path, tokenizer: Path | None) -> ModelView:
    """Return the model in a folder of Meta's layout, with its shards joined.

    Raises:
        UsageError: there is no `params.json`, or no tokenizer that Hugging Face's libraries can read.
        NemolaunchError: a file is damaged, or shards or shapes do not match.
    """
    return view_of(stored(folder), read_params(folder), find_tokenizer(tokenizer or folder))


def stored(folder: Path) -> TensorSource:
    """Return a folder's tensors with Meta's names, shards joined. Raises `NemolaunchError` if a shard is missing."""
    paths = sorted(folder.glob(SHARDS))
    expected = [f"consolidated.{number:02}.pth" for number in range(len(paths))]
    if [path.name for path in paths] != expected:
        raise NemolaunchError(
            f"{folder} is incomplete: its shards are {', '.join(p.name for p in paths)}; "
            f"they should be {', '.join(expected)}"
        )
    shards = [TorchFilesSource([path]) for path in paths]
    return shards[0] if len(shards) == 1 else JoinedShards(shards, int(read_params(folder).get("dim") or 0))


def view_of(stored: TensorSource, params: Mapping[str, Any], tokenizer: Path) -> ModelView:
    """Return the model whose tensors have Meta's names. Raises `NemolaunchError` if they do not match the params."""
    left_out = [name for name in stored.tensors if name.endswith((*COMPUTED, "rope.freqs"))]
    kept = {name: name for name in stored.tensors if name not in left_out}
    for name in (EMBEDDING, "layers.0.feed_forward.w1.weight"):
        if name not in kept:
            raise NemolaunchError(f"{name} is missing, which every Llama has")
    info = stored.tensors[EMBEDDING]
    tied = HEAD not in kept or same_tensor(stored, HEAD, EMBEDDING)
    changed = []
    if tied and HEAD in kept:
        left_out.append(kept.pop(HEAD))
        changed.append("the output layer equals the embedding, so they are tied in the result")
    config, assumed = config_of(
        params,
        vocab_size=info.shape[0],
        ffn_size=stored.tensors["layers.0.feed_forward.w1.weight"].shape[0],
        tied=tied,
        dtype=info.dtype,
    )
    source = RotaryOrder(Renamed(stored, {hf_name(name): name for name in kept}), config, to_halves)
    return ModelView(
        config=config,
        source=source,
        tokenizer=tokenizer,
        title="Meta's Llama",
        left_out=left_out,
        changed=[*changed, *assumed],
    )


def meta_source(view: ModelView) -> TensorSource:
    """Return a Llama's tensors in Meta's form, including a tied output layer, as Meta's models have it."""
    names = {meta_name(name): name for name in view.source.tensors}
    if HEAD not in names:
        names[HEAD] = HF_EMBEDDING
    return RotaryOrder(Renamed(view.source, names), view.config, to_pairs)


def meta_sink(folder: Path, tensors: Mapping[str, TensorInfo]) -> TensorSink:
    """Return a sink that writes `consolidated.00.pth` into a new folder."""
    folder.mkdir(parents=True)
    return TorchSink(folder / FIRST_SHARD, tensors)


def write_extras(folder: Path, view: ModelView) -> None:
    """Write `params.json` and the tokenizer's files."""
    text = json.dumps(params_of(view.config), indent=2) + "\n"
    (folder / PARAMS).write_text(text, encoding="utf-8")
    hf_folder.copy_tokenizer(view.tokenizer, folder, config=False)
    original = view.tokenizer / "original" / "tokenizer.model"
    if original.is_file() and not (folder / "tokenizer.model").is_file():
        shutil.copyfile(original, folder / "tokenizer.model")


def tokenizer_note(folder: Path) -> list[str]:
    """Return a note if Meta's own code cannot read the tokenizer."""
    if any((folder / name).is_file() for name in ("tokenizer.model", "original/tokenizer.model")):
        return []
    return [
        f"{folder} has no tokenizer.model, which Meta's own code needs; its other tokenizer files are copied"
    ]


def find_tokenizer(folder: Path) -> Path:
    """Return the folder. Raises `UsageError` if it has no tokenizer."""
    hf_folder.check_tokenizer(folder)
    return folder


def hf_name(name: str) -> str:
    """Return Hugging Face's name of Meta's tensor. Raises `NemolaunchError` if a Llama has no such tensor."""
    return _translated(name, NAMES)


def meta_name(name: str) -> str:
    """Return Meta's name of Hugging Face's tensor. Raises `NemolaunchError` if a Llama has no such tensor."""
    return _translated(name, {theirs: ours for ours, theirs in NAMES.items()})


def _translated(name: str, names: Mapping[str, str]) -> str:
    layer = LAYER.search(name)
    pattern = LAYER.sub(".{}.", name, count=1) if layer else name
    if pattern not in names:
        raise NemolaunchError(f"{name} is not a tensor of a Llama, so it has no name in the other format")
    return names[pattern].format(layer[1] if layer else "")
