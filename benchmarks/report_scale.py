"""Measure the report over long runs: time to write it, its size, and time until a browser has drawn it.

    python benchmarks/report_scale.py [--runs 10] [--steps 1000000]

The peer is parsing the same rows with `json` alone, in one process. Each run has one step with a loss of 50,
which must be visible in the report. Needs about 300 bytes of disk per step, and Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from report_runs import start, step, write_run

SPIKE = 50.0


def main() -> None:
    """Write the runs, measure, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [made(Path(folder) / f"run{n}", n, options.steps) for n in range(options.runs)]
        size = sum((run / "metrics.jsonl").stat().st_size for run in runs)
        began = time.perf_counter()
        for run in runs:
            with open(run / "metrics.jsonl", "rb") as file:
                for line in file:
                    json.loads(line)
        parsed = time.perf_counter() - began
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "nemolaunch.cli.main", "report", *map(str, runs), "-o", str(page)]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        written = time.perf_counter() - began
        opened, charts = shown(page)
        print(f"{options.runs} runs of {options.steps:,} steps, {size / 1e9:.2f} GB of metrics")
        print(f"json.loads of every row, one process   {parsed:8.1f} s")
        print(f"nemolaunch report                      {written:8.1f} s   {written / parsed:.2f} of that")
        print(f"page                                   {page.stat().st_size / 1e6:8.1f} MB")
        print(f"spikes in it                           {spikes(page):8}   of {options.runs}")
        print(f"opened and {charts} charts drawn           {opened:8.1f} s")


def made(folder: Path, number: int, steps: int) -> Path:
    """Write a run folder with `steps` rows and one spike in the loss."""
    rng = random.Random(number)
    spike = rng.randrange(steps // 4, steps)
    run = write_run(folder, [], max_steps=steps, lr=1e-3 * (number + 1))
    with open(run / "metrics.jsonl", "w") as file:
        file.write(json.dumps({**start(), "max_steps": steps}) + "\n")
        for n in range(1, steps + 1):
            loss = SPIKE if n == spike else 2 + 8 / (1 + n / 5000) + rng.gauss(0, 0.05)
            file.write(json.dumps(step(n, loss)) + "\n")
    return run


def shown(page: Path) -> tuple[float, int]:
    """Return the seconds from opening the page until its charts are drawn, and the number of charts."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        view.goto(page.as_uri())
        view.wait_for_function("document.querySelectorAll('.uplot canvas').length > 5")
        view.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seconds = time.perf_counter() - began
        charts = view.locator(".uplot canvas").count()
        browser.close()
    return seconds, charts


def spikes(page: Path) -> int:
    """Return the number of series in the page that contain the spike."""
    (figures,) = re.findall(r'id="figures">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)

    def count(value: object) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        if isinstance(value, list):
            return int(SPIKE in value) + sum(map(count, value))
        return 0

    return count(json.loads(figures))


if __name__ == "__main__":
    main()
