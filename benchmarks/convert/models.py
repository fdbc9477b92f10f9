"""Write Llama models with random bfloat16 weights as Hugging Face folders, without holding them in memory.

python models.py FOLDER 8b
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from nemolaunch.checkpoint.convert.mapping import export_map, sizes_of
from nemolaunch.checkpoint.hf.folder import copy_tokenizer
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSink
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.families.param_shapes import parameters
from nemolaunch.families.registry import FAMILIES

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"
SIZES = {
    "8b": (32, 4096, 14336, 32, 8, 128256),
    "1b": (16, 2048, 8192, 32, 8, 32000),
    "250m": (16, 1024, 2816, 16, 8, 32000),
}


def write_llama(folder: Path, size: str) -> int:
    """Write the model. Return the size of its weights in bytes."""
    layers, hidden, ffn, heads, groups, vocab = SIZES[size]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }
    family = FAMILIES["llama"]
    sizes = sizes_of(family, family.to_nemo(config).resolved)
    shapes = parameters(sizes.config, vocab)
    mapped = export_map(family, sizes, {n: TensorInfo("bfloat16", s) for n, s in shapes.items()}, vocab)
    folder.mkdir(parents=True)
    copy_tokenizer(TOKENIZER, folder, config=False)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    sink = SafetensorsSink(folder, mapped.hf)
    noise = (torch.randn(2**24) * 0.02).to(torch.bfloat16)
    for number, (name, info) in enumerate(mapped.hf.items()):
        repeats = -(-info.numel // noise.numel())
        sink.write(name, noise.roll(number).repeat(repeats)[: info.numel].reshape(info.shape))
    sink.finish()
    return sum(info.nbytes for info in mapped.hf.values())


if __name__ == "__main__":
    write_llama(Path(sys.argv[1]), sys.argv[2])
