"""Text → tokens → training, stopped and resumed → Hugging Face → text → report, in a few minutes.

Runs the commands a user would type, prints each one, and writes everything to one folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

import nemolaunch as nl

ROOT = Path(__file__).parents[1]
STEPS, STOP_AT = 450, 205
PROMPT = "And the LORD said unto"


def show(command: list[str]) -> None:
    """Print a command as a user would type it."""
    words = ["python" if word == sys.executable else word for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)


def run(command: list[str]) -> None:
    """Run a command; exit with its code if it fails."""
    show(command)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(code)


def run_and_stop(command: list[str], metrics: Path, step: int) -> None:
    """Run a training and press Ctrl-C once it has reached `step`."""
    show(command)
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and last_step(metrics) < step:
        time.sleep(0.2)
    if process.poll() is not None:
        sys.exit(process.returncode or "the training ended before it could be stopped")
    print(f"\n(pressing Ctrl-C after step {last_step(metrics)})", flush=True)
    process.send_signal(signal.SIGINT)
    process.wait()


def rows(metrics: Path) -> list[dict]:
    """Return the complete rows of a metrics file; none if it does not exist yet."""
    try:
        lines = metrics.read_text().splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def last_step(metrics: Path) -> int:
    """Return the last step in a metrics file; 0 if there is none."""
    return max((row["step"] for row in rows(metrics)), default=0)


def main() -> None:
    """Run the demo in the folder given on the command line, `demo` by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    parser.add_argument("--backend", choices=("nemo2", "bridge"), default="nemo2", help="what trains")
    options = parser.parse_args()
    folder, began = options.folder, time.monotonic()
    # A background process ignores Ctrl-C, and its children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shutil.rmtree(ROOT / folder, ignore_errors=True)
    python, data, training, export = sys.executable, str(folder / "data"), folder / "run", str(folder / "hf")
    run(["bash", "preprocess_data.sh", "--hf-tokenizer", "examples/bible/tokenizer", "--data-prefix", "bible",
         "--input-dir", "examples/bible/kjv.jsonl", "--output-dir", data])  # fmt: skip
    pretrain = [python, "train/llm/pretrain/pretrain_llm.py", "--config", "examples/demo.yaml",
                "--dataset-dir", data, "--output-dir", str(training), "--max-steps", str(STEPS),
                "--sample-every", "150", "--sample-prompt", PROMPT]  # fmt: skip
    if options.backend == "bridge":
        pretrain += ["--backend", "bridge"]
    metrics = ROOT / training / "metrics.jsonl"
    run_and_stop(pretrain, metrics, STOP_AT)
    print("\nRunning the same command again goes on where it stopped:")
    run(pretrain)
    last = os.path.relpath(nl.Run(ROOT / training).last_checkpoint, ROOT)
    if options.backend == "bridge":
        run(["nemolaunch", "convert", last, export, "--to", "hf"])
    else:
        run(
            [python, "ckpt_conversion/convert_from_nemo2_to_hf.py", "--source", last, "--output-path", export]
        )
    run(["nemolaunch", "generate", export, "--prompt", PROMPT, "--prompt", "In the beginning",
         "--max-new-tokens", "60", "--seed", "1"])  # fmt: skip
    report = str(folder / "report.html")
    run(["nemolaunch", "report", str(training), "-o", report, "--png", str(folder / "loss.png")])
    losses = [row["loss"] for row in rows(metrics) if "loss" in row]
    last_ten = sum(losses[-10:]) / 10
    print(f"\nThe loss fell from {losses[0]:.2f} to {last_ten:.2f} (mean of the last ten) in {STEPS} steps. "
          f"Total time: {time.monotonic() - began:.0f} s.\nReport: {report}")  # fmt: skip
    if sys.stdout.isatty() and (
        sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    ):
        webbrowser.open((ROOT / report).as_uri())


if __name__ == "__main__":
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    main()
