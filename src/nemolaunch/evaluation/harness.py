"""Benchmarks of EleutherAI's lm-eval on a Hugging Face folder."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf.loading import loadable
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.evaluation.model import check_causal
from nemolaunch.system.installation import how_to_install
from nemolaunch.tokenizer import library

RESULTS = ".lm-eval.json"  # suffix of the file beside a checkpoint


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """The benchmarks to run.

    Attributes:
        tasks: names of tasks, groups or tags, or paths of task files.
        include: folder with custom task definitions.
        num_fewshot: examples before each question; None means the task's own number.
        batch_size: a number or `auto`.
        limit: use only the first questions of each task, up to this number.
    """

    tasks: tuple[str, ...]
    include: Path | None = None
    num_fewshot: int | None = None
    batch_size: str = "1"
    limit: int | None = None
    chat_template: bool = False

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError("--tasks names no task")
        if self.batch_size != "auto" and not (self.batch_size.isdigit() and int(self.batch_size) > 0):
            raise UsageError(f"--batch-size {self.batch_size}: must be a positive integer or auto")
        if self.include and not self.include.is_dir():
            raise UsageError(f"--include-path {self.include} is not a folder")


def run(
    folder: Path,
    wanted: Benchmarks,
    *,
    dtype: str = "auto",
    tokenizer: Path | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Run benchmarks like `lm_eval --model hf`. Return lm-eval's results without the samples.

    Raises:
        UsageError: a task does not exist, the model is a masked language model, or needs code that is not trusted.
        NemolaunchError: lm-eval is not installed, or data or model cannot be loaded.
    """
    check_causal(folder)
    library.check_code(tokenizer or folder, trust_remote_code)
    # lm-eval forks after using tokenizers, which print a warning for each fork
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from lm_eval import evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise NemolaunchError(f"benchmarks require lm-eval: {how_to_install('eval')}") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # lm-eval runs git in the current folder, and its error message would reach the terminal
    evaluator.get_git_commit_hash = lambda: None
    manager = TaskManager(include_path=str(wanted.include) if wanted.include else None)
    _check_tasks(wanted.tasks, manager)
    options: dict[str, Any] = {"tokenizer": str(tokenizer)} if tokenizer else {}
    if torch.cuda.device_count() > 1:
        options["parallelize"] = True
    try:
        with loadable(folder) as readable:
            model = HFLM(
                pretrained=str(readable),
                dtype=dtype,
                batch_size=wanted.batch_size,
                trust_remote_code=trust_remote_code,
                device="cuda" if torch.cuda.is_available() else "cpu",
                **options,
            )
        results: Any = evaluator.simple_evaluate(
            model,
            tasks=list(wanted.tasks),
            num_fewshot=wanted.num_fewshot,
            limit=wanted.limit,
            task_manager=manager,
            apply_chat_template=wanted.chat_template,
            log_samples=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:400]
        raise NemolaunchError(
            f"--tasks {','.join(wanted.tasks)}: {type(error).__name__}: {reason}"
        ) from error
    return dict(results)


def _check_tasks(tasks: tuple[str, ...], manager: Any) -> None:
    for task in tasks:
        if Path(task).suffix in (".yaml", ".yml") and Path(task).is_file():
            continue
        if not manager.match_tasks([task]):
            near = difflib.get_close_matches(task, manager.all_tasks, n=4, cutoff=0.6)
            hint = (
                f" Did you mean {', '.join(near)}?" if near else " `python -m lm_eval ls tasks` lists them."
            )
            raise UsageError(f"--tasks: lm-eval has no task {task!r}.{hint}")


def figures(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return metrics by task: mean, standard error if known, number of questions and of few-shot examples."""
    table: dict[str, dict[str, Any]] = {}
    for task, values in results["results"].items():
        row: dict[str, Any] = {}
        for key, value in values.items():
            name, _, kept = key.partition(",")
            if isinstance(value, (int, float)) and kept:
                row[name if kept == "none" else f"{name} ({kept})"] = value
        row["num_fewshot"] = results.get("n-shot", {}).get(task)
        row["num_samples"] = results.get("n-samples", {}).get(task, {}).get("effective")
        table[task] = row
    return table
