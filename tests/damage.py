"""Files of every kind that a command reads, and what the commands say when bytes in them are changed.

Run as a program, it tries many changes and prints those that end in a traceback: `python tests/damage.py 2000`.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inside import inside
from nemo2.model_zoo import ZOO
from report_runs import start, step, write_run

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.cli.main import main

EVALUATION = {
    "step": 3,
    "eval_perplexity": 3.0,
    "ppl_of": {"data": "d", "tokens": 1, "context_length": 8, "stride": 1},
}
YAML = "model-name: nano\nmax-steps: 3\nset: [model.config.x=1]\nenv: [A=1]\ndataset-dir:\n  - data:0.5\n  - 'b': 1\n"
SHORTEST_LINE = 3


@dataclass(frozen=True)
class Kind:
    """A file, by its path in the folder of samples, and the commands that read it."""

    path: str
    commands: tuple[str, ...]


TO_TORCH = "convert nemo out.pt --to torch --verify none"
TO_HF = "convert nemo out --to hf --verify none"
TRAIN = "pretrain -M nano --hf-model-id tokenizer --dataset-dir data/tokens -G 1 --max-steps 3 --dry-run"
WEIGHTS = f"{TRAIN} --nemo-model bridge"
REPORT = "report runs/run -o r.html"
COUNT = "count-params -M nano --hf-model-id tokenizer"
MADE = "made/preprocessed/a_text_document"
KINDS = {
    "config.json": Kind("hf/config.json", ("inspect checkpoint hf", "count-params -M hf --hf-model-id hf")),
    "safetensors": Kind(
        "hf/model.safetensors", ("inspect checkpoint hf", "convert hf out.pt --to torch --verify none")
    ),
    "index": Kind("sharded/model.safetensors.index.json", ("inspect checkpoint sharded",)),
    "torch": Kind(
        "model.pt", ("inspect checkpoint model.pt", "convert model.pt out --to safetensors --verify none")
    ),
    "metadata": Kind("nemo/weights/.metadata", ("inspect checkpoint nemo", TO_TORCH)),
    "distcp": Kind("nemo/weights/__0_0.distcp", (TO_TORCH,)),
    "io.json": Kind("nemo/context/io.json", ("inspect checkpoint nemo", TO_HF)),
    "model.yaml": Kind("nemo/context/model.yaml", ("inspect checkpoint nemo", TO_HF)),
    "common.pt": Kind("nemo/weights/common.pt", (TO_HF,)),
    "bridge metadata": Kind(
        "bridge/iter_0000000/.metadata", ("inspect checkpoint bridge", "convert bridge out --to hf --verify none")
    ),
    "run_config.yaml": Kind(
        "bridge/iter_0000000/run_config.yaml",
        ("inspect checkpoint bridge", "convert bridge out --to hf --verify none", WEIGHTS),
    ),
    "train_state": Kind(
        "bridge/iter_0000000/train_state.pt",
        ("inspect checkpoint bridge", "convert bridge out --to hf --verify none"),
    ),
    "tracker": Kind("bridge/latest_checkpointed_iteration.txt", ("inspect checkpoint bridge", WEIGHTS)),
    "idx": Kind("data/tokens.idx", ("inspect data data/tokens",)),
    "metrics": Kind("runs/run/metrics.jsonl", ("status --runs-dir runs", REPORT, "diagnose runs/run")),
    "evaluations": Kind("runs/run/evaluations.jsonl", (REPORT,)),
    "plan": Kind(
        "runs/run/plan.json",
        (
            "status --runs-dir runs", "status runs/run", REPORT, "pretrain --plan runs/run/plan.json --dry-run",
            "diff runs/run runs/other",
        ),
    ),
    "yaml": Kind("job.yaml", ("plan --config job.yaml",)),
    "tokenizer.json": Kind(
        "tokenizer/tokenizer.json", ("inspect data data/tokens --hf-tokenizer tokenizer", COUNT)
    ),
    "tokenizer_config.json": Kind("tokenizer/tokenizer_config.json", (COUNT,)),
    "manifest": Kind(f"{MADE}.manifest.json", (f"inspect data {MADE}", "merge made/preprocessed -o both")),
}  # fmt: skip
INSERTED = (b"null", b"-1", b"1e400", b"{}", b"[", b'"', b"\xff", b"9" * 30, b"\x1b]0;x\x07")


def write_samples(folder: Path) -> None:
    """Write a sound file of each kind, with what lies beside it."""
    from nemolaunch.cli.main import main as nemolaunch

    ZOO["llama"].write(folder / "hf")
    convert(folder / "hf", folder / "nemo", "nemo2", Options())
    convert(folder / "hf", folder / "bridge", "bridge", Options())
    convert(folder / "hf", folder / "model.pt", "torch", Options(verify=False))
    shutil.copytree(folder / "hf", folder / "sharded")
    names = [*_tensors(folder / "sharded" / "model.safetensors")]
    (folder / "sharded" / "model.safetensors").rename(folder / "sharded" / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "runs").mkdir()
    rows = [
        start(),
        *(step(n, 9.0 - n) for n in range(1, 4)),
        {"event": "loss spike", "step": 3, "time": 1.0, "text": "x"},
    ]
    for name in ("run", "other"):
        run = write_run(folder / "runs" / name, [*rows, {"step": 3, "time": 1004.0, "val_loss": 3.0}])
        (run / "evaluations.jsonl").write_text(json.dumps(EVALUATION) + "\n")
    prefix = next((folder / "runs" / "data").glob("*.idx")).with_suffix("")
    (folder / "data").mkdir()
    for end in (".idx", ".bin"):
        shutil.copyfile(f"{prefix}{end}", folder / "data" / f"tokens{end}")
    (folder / "job.yaml").write_text(YAML)
    shutil.copytree(Path(__file__).parents[1] / "examples" / "tokenizer", folder / "tokenizer")
    (folder / "text").mkdir()
    (folder / "text" / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with inside(folder), contextlib.redirect_stdout(io.StringIO()):
        words = "tokenize --hf-tokenizer tokenizer --input-dir text --output-dir made --data-prefix a"
        assert nemolaunch(words.split()) == 0
    assert (folder / KINDS["manifest"].path).exists(), list((folder / "made").iterdir())


def _tensors(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    yield from safe_open(path, "numpy").keys()


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a content with one to three bytes changed, a part left out, a line repeated, or the end cut off."""
    changed = bytearray(content)
    # the first bytes hold what the rest is read by
    at = chance.randrange(min(len(content), chance.choice((64, 512, 4096, len(content)))))
    kind = chance.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        del changed[at : at + chance.randrange(1, 9)]
    elif kind == 2:
        changed[at:at] = chance.choice(
            (b"null", b"-1", b"1e400", b"{}", b"[", b'"', b"\xff", b"9" * 30, b"\x1b]0;x\x07")
        )
    else:
        for _ in range(kind - 2):
            changed[min(len(changed) - 1, at)] ^= 1 << chance.randrange(8)
            at = chance.randrange(len(changed))
    return bytes(changed)


def fault_of(command: str, folder: Path) -> str | None:
    """Run a command in a folder. Return its traceback, if it ends in one."""
    shown = io.StringIO()
    for out in ("out", "out.pt", "both.bin", "both.idx", "both.manifest.json"):
        shutil.rmtree(folder / out, ignore_errors=True)
        (folder / out).unlink(missing_ok=True)
    try:
        with inside(folder), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            main(command.split())
    except SystemExit:
        pass
    except Exception:
        return traceback.format_exc()
    return "a traceback in the output:\n" + shown.getvalue() if "Traceback" in shown.getvalue() else None


def tried(name: str, folder: Path, num_tries: int, seed: int = 1) -> Iterator[str]:
    """Damage a file of one kind in many ways. Yield the tracebacks."""
    kind, chance = KINDS[name], random.Random(f"{name} {seed}")
    path = folder / kind.path
    content = path.read_bytes()
    try:
        for _ in range(num_tries):
            path.write_bytes(damaged(content, chance))
            for command in kind.commands:
                fault = fault_of(command, folder)
                if fault:
                    yield f"{name}: {command}\n{fault}"
    finally:
        path.write_bytes(content)


def _main(num_tries: int, names: list[str]) -> int:
    total = 0
    with tempfile.TemporaryDirectory() as temporary:
        write_samples(Path(temporary))
        for name in names or KINDS:
            faults: dict[str, int] = {}
            for fault in tried(name, Path(temporary), num_tries):
                total += 1
                short = "\n".join(fault.splitlines()[:1] + fault.splitlines()[-SHORTEST_LINE - 3 :])
                faults[short] = faults.get(short, 0) + 1
            print(f"=== {name}: {sum(faults.values())} tracebacks of {num_tries} tries", flush=True)
            for text, count in sorted(faults.items(), key=lambda item: -item[1]):
                print(f"--- {count} x {text}", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2:]))
