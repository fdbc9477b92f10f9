"""Compare moving a training checkpoint of Llama 3 8B's shape with `cp -r` of the same bytes: time and peak memory.

    python migrate.py --folder /tmp/bench                # 104 GiB in sparse files: only migrated
    python migrate.py --folder /tmp/bench --layers 2     # 20 GB of real bytes, compared with cp -r

A checkpoint has the weights in bf16, and of the optimizer the weights in fp32 and Adam's two moments, as 8 processes
with TP 8 save it. With all 32 layers its files are sparse, since no tensor is read. With fewer they are full of bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

from compare import NEMOLAUNCH, measure

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

HIDDEN, FFN, VOCABULARY, LAYERS, TP = 4096, 14336, 128256, 32, 8
HEADER = 2048  # of each tensor that torch saves
BLOCK = 64 << 20
# One layer's tensors -> shape, and the axis that tensor parallelism splits
LAYER: dict[str, tuple[tuple[int, ...], int | None]] = {
    "self_attention.linear_proj.weight": ((HIDDEN, HIDDEN), 1),
    "self_attention.linear_qkv.weight": ((6144, HIDDEN), 0),
    "self_attention.linear_qkv.layer_norm_weight": ((HIDDEN,), None),
    "mlp.linear_fc1.weight": ((2 * FFN, HIDDEN), 0),
    "mlp.linear_fc1.layer_norm_weight": ((HIDDEN,), None),
    "mlp.linear_fc2.weight": ((HIDDEN, FFN), 1),
}
OTHERS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "embedding.word_embeddings.weight": ((VOCABULARY, HIDDEN), 0),
    "decoder.final_layernorm.weight": ((HIDDEN,), None),
    "output_layer.weight": ((VOCABULARY, HIDDEN), 0),
}


class Files:
    """The data files of 8 processes, filled with bytes or sparse."""

    def __init__(self, folder: Path, sparse: bool) -> None:
        self.folder, self.sparse = folder, sparse
        self.sizes = dict.fromkeys(range(TP), 0)

    def place(self, rank: int, length: int) -> tuple[str, int, int]:
        """Return the file, offset and length of a new tensor."""
        start = self.sizes[rank]
        self.sizes[rank] += length
        return f"__{rank}_0.distcp", start, length

    def write(self) -> None:
        """Write all files."""
        block = os.urandom(BLOCK)
        for rank, size in self.sizes.items():
            with open(self.folder / f"__{rank}_0.distcp", "wb") as file:
                if self.sparse:
                    file.truncate(size)
                    continue
                for done in range(0, size, BLOCK):
                    file.write(block[: size - done])


def write_checkpoint(folder: Path, layers: int) -> None:
    """Write a checkpoint of NeMo 2, with its description."""
    import torch
    import training_checkpoint

    from nemolaunch.checkpoint.megatron.sink import BACKEND
    from nemolaunch.checkpoint.nemo2.context import write_context
    from nemolaunch.families.nemo_config import NemoConfig

    fields = {"num_layers": layers, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": 32}
    fields |= {"num_query_groups": 8, "seq_length": 8192, "rotary_base": 500000}
    config = NemoConfig("LlamaModel", "Llama3Config8B", fields)
    weights = folder / "weights"
    weights.mkdir(parents=True)
    write_context(folder / "context", config, ROOT / "examples" / "tokenizer")
    files = Files(weights, sparse=layers == LAYERS)
    with open(weights / ".metadata", "wb") as file:
        pickle.dump(_metadata(files, layers), file)
    files.write()
    content = io.BytesIO()
    torch.save(training_checkpoint.common(), content)
    (weights / "common.pt").write_bytes(content.getvalue())
    (weights / "metadata.json").write_text(json.dumps(BACKEND))


def _metadata(files: Files, layers: int) -> Any:
    import torch
    import torch.distributed.checkpoint.metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    entries: dict[str, Any] = {}
    storage: dict[Any, Any] = {}
    stacked = {f"decoder.layers.{name}": (shape, axis, layers) for name, (shape, axis) in LAYER.items()}
    single = {name: (shape, axis, 0) for name, (shape, axis) in OTHERS.items()}
    for name, (shape, axis, depth) in {**stacked, **single}.items():
        whole = (depth, *shape) if depth else shape
        for prefix, dtype in (
            ("module.", torch.bfloat16),
            *(
                (f"optimizer.state.{kind}.module.", torch.float32)
                for kind in ("param", "exp_avg", "exp_avg_sq")
            ),
        ):
            chunks = []
            for layer in range(depth or 1):
                for rank in range(TP if axis is not None else 1):
                    sizes, offsets = list(shape), [0] * len(shape)
                    if axis is not None:
                        sizes[axis] //= TP
                        offsets[axis] = rank * sizes[axis]
                    sizes, offsets = ([1, *sizes], [layer, *offsets]) if depth else (sizes, offsets)
                    chunks.append(dcp.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
                    length = math.prod(sizes) * dtype.itemsize + HEADER
                    index = dcp.MetadataIndex(prefix + name, torch.Size(offsets))
                    storage[index] = _StorageInfo(*files.place(rank, length))
            properties = dcp.TensorProperties(dtype=dtype)
            entries[prefix + name] = dcp.TensorStorageMetadata(properties, torch.Size(whole), chunks)
    return dcp.Metadata(state_dict_metadata=entries, storage_data=storage)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where to write")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of 32; fewer are written in full")
    options = parser.parse_args()
    work = options.folder / "migrate"
    shutil.rmtree(work, ignore_errors=True)
    source, moved, copied = work / "source", work / "moved", work / "copied"
    # in another process: the peak memory of a child is at least that of its parent when it was started
    writer = multiprocessing.get_context("spawn").Process(
        target=write_checkpoint, args=(source, options.layers)
    )
    writer.start()
    writer.join()
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    print(f"{options.layers} layers, {size / 2**30:.1f} GiB")
    commands = {
        "nemolaunch convert --to bridge": ([*NEMOLAUNCH, str(source), str(moved), "--to", "bridge"], moved)
    }
    if options.layers < LAYERS:
        commands["cp -r"] = (["cp", "-r", str(source), str(copied)], copied)
    for name, (command, output) in commands.items():
        run = measure(command, source, output)
        print(f"{name:32} {run.seconds:8.1f} s {run.peak_bytes / 2**20:8.0f} MiB")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
