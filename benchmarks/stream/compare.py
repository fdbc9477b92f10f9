"""Measure tokens per second of one worker, for rows tokenised on the fly and for data prepared in advance.

    python ../tokenize/corpus.py --packages . --output corpus --megabytes 250
    pip install --target peers --no-deps litdata==0.2.76 boto3 botocore s3transfer jmespath tifffile obstore
    PYTHONPATH=peers python compare.py --corpus corpus/corpus.jsonl --tokenizer corpus/tokenizer --rounds 3

The corpus is split into two sources of Parquet files, mixed in a ratio of 7 to 3. Each contender yields
samples of 2049 tokens, with end-of-document tokens, from one PyTorch worker process; contenders take turns,
each in its own process. Time starts with the first sample, so filling a shuffle buffer is not included.
`nemolaunch` is measured with its fast engine, and with Hugging Face's, which `datasets` uses. Data prepared
in advance is read without tokenising; the speed of preparing it is shown separately.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARES = (0.7, 0.3)
FILES = 8
ON_THE_FLY = ("nemolaunch", "nemolaunch-hf", "datasets")
PREPARED = ("litdata", "indexed")


def sources(corpus: Path, folder: Path) -> None:
    """Write the corpus as two folders of Parquet files, with row groups as large as those of web datasets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(corpus, "rb") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    border = round(len(texts) * SHARES[0])
    for name, part in (("a", texts[:border]), ("b", texts[border:])):
        for number in range(FILES):
            path = folder / name / f"{number:02}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": part[number::FILES]}), path, row_group_size=1000)


def measure(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run one contender once. Raises CalledProcessError if it fails."""
    command = [sys.executable, str(HERE / "contenders.py"), kind, str(folder), str(options.tokenizer)]
    command += [str(options.seconds), str(options.buffer)]
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr[-3000:])
        raise subprocess.CalledProcessError(done.returncode, command)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all contenders, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("bench-stream"))
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of each measurement")
    parser.add_argument("--buffer", type=int, default=10_000, help="rows in the shuffle buffer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="KIND")
    options = parser.parse_args()
    if not (options.output / "b").exists():
        sources(options.corpus, options.output)
    kinds = options.only or [*ON_THE_FLY, *PREPARED]
    prepared = {
        kind: measure(f"prepare-{kind}", options.output, options) for kind in kinds if kind in PREPARED
    }
    rounds = [{kind: measure(kind, options.output, options) for kind in kinds} for _ in range(options.rounds)]
    base = "datasets" if "datasets" in kinds else kinds[0]
    print(f"| one worker | tokens/s | relative to {base} | s to the first sample | tokens/s to prepare |")
    print("|---|---|---|---|---|")
    for kind in kinds:
        speed = statistics.median(r[kind]["tokens_per_s"] for r in rounds)
        ratio = statistics.median(r[kind]["tokens_per_s"] / r[base]["tokens_per_s"] for r in rounds)
        first = statistics.median(r[kind]["first_s"] for r in rounds)
        before = f"{prepared[kind]['tokens_per_s']:,.0f}" if kind in prepared else "–"
        print(f"| {kind} | {speed:,.0f} | {ratio:.2f} | {first:.1f} | {before} |")


if __name__ == "__main__":
    main()
