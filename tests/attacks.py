"""Checkpoints that would run code, and every command that reads a checkpoint.

Run as a program, it prints what each command does with each of them: `python tests/attacks.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from check_jobs import TOKENIZER, write_data
from inside import inside
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.cli.main import main

TRAINS = f"pretrain -M nano --hf-model-id {TOKENIZER} --dataset-dir data/tokens -G 1 --max-steps 3 --dry-run"
COMMANDS = {
    "convert --to hf": "convert ckpt out --to hf",
    "convert --to torch": "convert ckpt out.pt --to torch",
    "inspect": "inspect checkpoint ckpt",
    "eval ppl": "eval ppl ckpt --data text.txt",
    "eval mlm": "eval mlm ckpt --data text.txt",
    "eval lm": "eval lm ckpt --tasks arc_easy --limit 1",
    "generate": "generate ckpt --prompt a",
    "chat": "chat ckpt",
    "fill-mask": "fill-mask ckpt --text a",
    "push": "push ckpt me/model --show-card",
    "pretrain --nemo-model": f"{TRAINS} --nemo-model ckpt",
    "pretrain --resume": f"{TRAINS} --resume ckpt",
}
REFUSED, DATA, RAN = "refused", "read as data", "RAN CODE"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.marker)],)


def io_json(checkpoint: Path, marker: Path) -> None:
    """Call a function from the model's configuration."""
    path = checkpoint / "context" / "io.json"
    content = json.loads(path.read_text())
    call = {"type": "pyref", "module": "subprocess", "name": "call"}
    about = next(v for v in content["objects"].values() if "Metadata" in str(v["type"].get("name")))
    about["items"][0][1] = call
    path.write_text(json.dumps(content))


def io_json_type(checkpoint: Path, marker: Path) -> None:
    """Import a module that the type of an object names."""
    path = checkpoint / "context" / "io.json"
    content = json.loads(path.read_text())
    content["objects"]["x"] = {"type": {"module": "antigravity", "name": "x"}, "items": [], "metadata": None}
    path.write_text(json.dumps(content))


def context_pickle(checkpoint: Path, marker: Path) -> None:
    """Name a pickle in the context."""
    (checkpoint / "context" / "part").write_bytes(pickle.dumps(Trap(marker)))
    path = checkpoint / "context" / "io.json"
    content = json.loads(path.read_text())
    kind = {"type": "pyref", "module": "nemo.lightning.pytorch.trainer", "name": "Trainer"}
    content["objects"]["x"] = {"type": kind, "items": [["IdentityElement()", "part"]], "metadata": None}
    path.write_text(json.dumps(content))


def weights_of(checkpoint: Path) -> Path:
    """The distributed checkpoint in one of NeMo 2, or in a folder with one of Bridge."""
    return next(checkpoint.glob("iter_*"), checkpoint / "weights")


def metadata(checkpoint: Path, marker: Path) -> None:
    """Put an object into `.metadata`."""
    path = weights_of(checkpoint) / ".metadata"
    content = pickle.loads(path.read_bytes())
    content.planner_data = Trap(marker)
    path.write_bytes(pickle.dumps(content))


def common_pt(checkpoint: Path, marker: Path) -> None:
    """Put an object into Megatron's common state."""
    import torch

    torch.save({"state": Trap(marker)}, weights_of(checkpoint) / "common.pt")


def distcp(checkpoint: Path, marker: Path) -> None:
    """Put an object among the tensors."""
    import torch

    path = weights_of(checkpoint) / ".metadata"
    content, stored = pickle.loads(path.read_bytes()), io.BytesIO()
    torch.save(Trap(marker), stored)
    (path.parent / "other.distcp").write_bytes(stored.getvalue())
    info = next(v for k, v in content.storage_data.items() if k.offset is None)
    info.relative_path, info.offset, info.length = "other.distcp", 0, len(stored.getvalue())
    path.write_bytes(pickle.dumps(content))


def of_bridge(attack: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """The same attack on a checkpoint of Bridge."""

    def attacked(checkpoint: Path, marker: Path) -> None:
        attack(checkpoint, marker)

    attacked.__name__ = f"bridge_{attack.__name__}"
    return attacked


def train_state(checkpoint: Path, marker: Path) -> None:
    """Put an object into the state of the training."""
    import torch

    torch.save({"step": Trap(marker)}, weights_of(checkpoint) / "train_state.pt")


def run_config_tag(checkpoint: Path, marker: Path) -> None:
    """Call a function by a tag of YAML."""
    path = weights_of(checkpoint) / "run_config.yaml"
    path.write_text(path.read_text() + f"x: !!python/object/apply:subprocess.call [[touch, {marker}]]\n")


def run_config_target(checkpoint: Path, marker: Path) -> None:
    """Import a module by the name of a function of the model."""
    import yaml

    path = weights_of(checkpoint) / "run_config.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"]["activation_func"]["_target_"] = "antigravity.silu"
    path.write_text(yaml.safe_dump(content))


def run_config_call(checkpoint: Path, marker: Path) -> None:
    """Call functions where Bridge has classes of its own."""
    import yaml

    path = weights_of(checkpoint) / "run_config.yaml"
    content = yaml.safe_load(path.read_text())
    call = {"_target_": "subprocess.call", "_args_": [["touch", str(marker)]], "_call_": True}
    content["model"] |= {"init_method": call, "attention_backend": call}
    content |= {"tokenizer": {**call, "tokenizer_model": "tokenizer"}, "train": call}
    path.write_text(yaml.safe_dump(content))


def auto_map(model: Path, marker: Path) -> None:
    """Name another module in the configuration of a bidirectional model."""
    bidirectional.make_bidirectional(model)
    content = json.loads((model / "config.json").read_text())
    content["auto_map"]["AutoConfig"] = "other.C"
    (model / "config.json").write_text(json.dumps(content))
    lines = [
        "import pathlib",
        f"pathlib.Path({str(marker)!r}).touch()",
        "from transformers import LlamaConfig",
    ]
    (model / "other.py").write_text(
        "\n".join([*lines, "class C(LlamaConfig): model_type = 'llama_bidirectional'\n"])
    )


def tokenizer_code(model: Path, marker: Path) -> None:
    """Name a tokenizer class in the folder."""
    path = model / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    path.write_text(json.dumps(content))
    (model / "own.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")


def torch_bin(model: Path, marker: Path) -> None:
    """Put an object into the weights of transformers' older format."""
    import torch

    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Trap(marker)}, model / "pytorch_model.bin")


NEMO: tuple[Callable[[Path, Path], None], ...] = (
    io_json,
    io_json_type,
    context_pickle,
    metadata,
    common_pt,
    distcp,
)
BRIDGE: tuple[Callable[[Path, Path], None], ...] = (
    of_bridge(metadata),
    of_bridge(common_pt),
    of_bridge(distcp),
    train_state,
    run_config_tag,
    run_config_target,
    run_config_call,
)
HF: tuple[Callable[[Path, Path], None], ...] = (auto_map, tokenizer_code, torch_bin)


def write_samples(folder: Path) -> None:
    """Write sound checkpoints, a text and training data."""
    ZOO["llama"].write(folder / "hf")
    convert(folder / "hf", folder / "nemo", "nemo2", Options())
    convert(folder / "hf", folder / "bridge", "bridge", Options())
    (folder / "text.txt").write_text("some words\n")
    (folder / "data").mkdir()
    prefix = write_data(folder / "data")
    for end in (".idx", ".bin"):
        shutil.copyfile(f"{prefix}{end}", folder / "data" / f"tokens{end}")


def outcome(
    attack: Callable[[Path, Path], None], command: str, samples: Path, folder: Path
) -> tuple[str, str]:
    """Run a command on a checkpoint. Return what became of it, and what it printed."""
    source = samples / ("nemo" if attack in NEMO else "bridge" if attack in BRIDGE else "hf")
    shutil.copytree(source, folder / "ckpt")
    for name in ("text.txt", "data"):
        (folder / name).symlink_to(samples / name)
    marker = folder / "ran"
    attack(folder / "ckpt", marker)
    shown = io.StringIO()
    code: Any = 1
    with inside(folder), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        standard_input, sys.stdin = sys.stdin, io.StringIO("y\n")
        try:
            code = main(command.split())
        except SystemExit as error:
            code = error.code
        finally:
            sys.stdin = standard_input
    ran = marker.exists() or "antigravity" in sys.modules
    return RAN if ran else DATA if code == 0 else REFUSED, shown.getvalue()


def _main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    bad = 0
    attacks = (*NEMO, *BRIDGE, *HF)
    print("| command | " + " | ".join(attack.__name__ for attack in attacks) + " |")
    print("|---" * (len(attacks) + 1) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        samples = Path(temporary, "samples")
        samples.mkdir()
        write_samples(samples)
        for name, command in COMMANDS.items():
            cells = []
            for attack in attacks:
                with tempfile.TemporaryDirectory() as folder:
                    cells.append(outcome(attack, command, samples, Path(folder)))
            bad += sum(cell == RAN for cell, _ in cells)
            print(f"| `{name}` | " + " | ".join(cell for cell, _ in cells) + " |", flush=True)
            if "-v" in sys.argv:
                print(
                    *(f"    {said.strip()[-200:]!r}" for _, said in cells),
                    sep="\n",
                    file=sys.stderr,
                    flush=True,
                )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(_main())
