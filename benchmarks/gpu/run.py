"""Run benchmark steps on a machine with one GPU and no network.

    python3 benchmarks/gpu/run.py --env ENV --work WORK --results RESULTS smoke throughput-1b

ENV is the environment that `install.py` made. Each step is independent, ends within `--minutes`, and
continues after a failure, which it reports. Its result is one JSON file in RESULTS, updated after every row.
`tables.py` turns results into docs/performance.md. `--device cpu --tiny` runs the same steps with tiny shapes
on a CPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STEPS = ("smoke", "throughput-1b", "throughput-8b", "layer-cost", "estimator", "cpu-gpu", "tuning")


def main(argv: list[str] | None = None) -> int:
    """Run the steps. Return 0 if every row of every step succeeded, else 1."""
    arguments = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("steps", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    arguments.add_argument("--env", type=Path, help="environment made by install.py (default: this one)")
    arguments.add_argument("--work", type=Path, default=Path("/tmp/nemolaunch-gpu"), help="scratch folder")
    arguments.add_argument("--results", type=Path, default=HERE / "results", help="folder for results")
    arguments.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    arguments.add_argument("--tiny", action="store_true", help="tiny shapes, to test the steps")
    arguments.add_argument("--minutes", type=float, default=9.0, help="time limit of a step")
    arguments.add_argument("--dry-run", action="store_true", help="print what would be measured")
    given = arguments.parse_args(argv)
    _change_python(given.env)
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]
    return sum([_take(given, step) for step in given.steps]) and 1


def _change_python(env: Path | None) -> None:
    """Restart this script with the environment's Python, unless it runs there already."""
    if env is not None and Path(sys.prefix).resolve() != env.resolve():
        python = env.absolute() / "bin" / "python"
        if not python.exists():
            sys.exit(f"error: {env} has no environment yet: run install.py first")
        os.execv(python, [str(python), *sys.argv])


def _take(given: argparse.Namespace, step: str) -> int:
    """Run one step. Return the number of its rows that failed."""
    import json

    from bench import Bench, Row, take

    bench = Bench(
        device=given.device,
        tiny=given.tiny,
        work=given.work.absolute() / step,
        results=given.results.absolute(),
        env=given.env.absolute() if given.env else None,
        seconds=given.minutes * 60,
    )
    rows, summary = _module(step)
    if given.dry_run:
        for row in rows(bench):
            print(f"{step}: {row.name}: {row.what}")
        return 0
    bench.work.mkdir(parents=True, exist_ok=True)
    try:
        wanted: list[Row] = rows(bench)
    except Exception as error:  # its rows cannot be determined here: recorded as a failed row
        why = f"{type(error).__name__}: {error}"
        wanted = [Row("layout", "determine the rows", lambda: _raise(why))]
    file = take(bench, step, wanted, summary)
    _keep_logs(bench.work, given.results / f"{file.stem}-logs.tar.gz")
    record: dict[str, Any] = json.loads(file.read_text())
    failed = sum("error" in row for row in record["rows"])
    print(f"{step}: {len(record['rows']) - failed} of {len(record['rows'])} rows; {file}")
    if step == "tuning" and "summary" in record:
        from steps import tuning

        file.with_suffix(".preset.yaml").write_text(tuning.preset(record))
    shutil.rmtree(bench.work, ignore_errors=True)
    return failed


def _raise(why: str) -> dict[str, Any]:
    from bench import Failed

    raise Failed(why)


def _module(step: str) -> tuple[Callable[..., list[Any]], Callable[..., Any]]:
    """Return the functions `rows(bench)` and `summary(rows)` of a step."""
    from functools import partial

    from steps import cpu_gpu, estimator, layer_cost, smoke, throughput, tuning

    if step.startswith("throughput-"):
        recipe = {"1b": "llama32_1b", "8b": "llama31_8b"}[step.partition("-")[2]]
        return partial(throughput.rows, recipe=recipe), throughput.summary
    module: Any = {
        "smoke": smoke,
        "layer-cost": layer_cost,
        "estimator": estimator,
        "cpu-gpu": cpu_gpu,
        "tuning": tuning,
    }[step]
    return module.rows, module.summary


def _keep_logs(work: Path, target: Path) -> None:
    """Archive the jobs' output, rank logs, metrics and plans, without files over 20 MB."""
    logs = [*work.glob("logs/*.log"), *work.glob("runs/*/logs/*.log"), *work.glob("runs/*/metrics.jsonl")]
    logs += [*work.glob("runs/*/plan.json")]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for path in logs:
            if path.stat().st_size < 20_000_000:
                archive.add(path, path.relative_to(work))


if __name__ == "__main__":
    sys.exit(main())
