"""The `nemolaunch` command: finds the sub-command and hands over the rest of the line.

Each command is a module with `main(argv) -> exit code`, imported only when it is asked for, so that
`nemolaunch --help` stays instant whatever the commands themselves need.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from nemolaunch.cli.render import guarded

COMMANDS = {
    "pretrain": ("nemolaunch.cli.pretrain", "train a model: locally, on the CPU as a rehearsal, or on Slurm"),
    "status": ("nemolaunch.cli.status", "show how a run stands, or all runs"),
    "follow": ("nemolaunch.cli.follow", "show a run on Slurm until it is over"),
    "logs": ("nemolaunch.cli.logs", "show what a rank of a run has written"),
    "cancel": ("nemolaunch.cli.cancel", "end a run and its queued jobs"),
    "resume": ("nemolaunch.cli.resume", "go on with a run from its last checkpoint"),
    "doctor": ("nemolaunch.cli.doctor", "say what is wrong with this machine, and what to type"),
    "diagnose": ("nemolaunch.cli.diagnose", "say why a run failed, and what to change"),
    "download": ("nemolaunch.cli.download", "download text to train on, models and tokenizers"),
    "plan": ("nemolaunch.cli.plan", "check a job and show what would run, as text, YAML or JSON"),
    "generate-config": ("nemolaunch.cli.generate_config", "print a job as a complete YAML file"),
    "schema": ("nemolaunch.cli.schema", "print a JSON Schema of the YAML file, for editors"),
    "diff": ("nemolaunch.cli.diff", "show what differs between two runs"),
    "estimate-mem": ("nemolaunch.cli.estimate_mem", "estimate the memory of a GPU for a model in a layout"),
    "count-params": ("nemolaunch.cli.count_params", "count a model's parameters"),
    "suggest": ("nemolaunch.cli.suggest", "rank parallel layouts that fit by estimated step time"),
    "tokenize": ("nemolaunch.cli.tokenize", "turn text files into Megatron .bin/.idx"),
    "merge": ("nemolaunch.cli.merge", "join tokenised data sets, or blend them"),
    "inspect": ("nemolaunch.cli.inspect", "show and check tokenised data"),
    "convert": ("nemolaunch.cli.convert", "convert a checkpoint between Hugging Face and NeMo 2"),
    "generate": ("nemolaunch.cli.generate", "let a model continue prompts"),
    "chat": ("nemolaunch.cli.chat", "talk with a model"),
    "eval": ("nemolaunch.cli.eval", "measure a model: perplexity, benchmarks, each checkpoint of a run"),
    "models": ("nemolaunch.cli.models", "list the models and configurations that can be named"),
    "report": ("nemolaunch.cli.report", "draw one page about a run"),
    "tensorboard": ("nemolaunch.cli.tensorboard", "start TensorBoard about runs, and say how to reach it"),
}


def usage() -> str:
    """The text of `nemolaunch --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return (
        "usage: nemolaunch COMMAND [options]\n\nFrom raw text to a trained and exported model with NVIDIA NeMo 2.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n`nemolaunch COMMAND --help` tells the options of one."
    )


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print("nemolaunch", version("nemolaunch"))
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        print(f"error: there is no command {argv[0]!r}.{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    return int(importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
