"""The `nemolaunch` command: finds the sub-command and hands over the rest of the line.

Each command is a module with `main(argv) -> exit code`, imported only when it is asked for, so that
`nemolaunch --help` stays instant whatever the commands themselves need.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from nemolaunch.cli.render import guarded
from nemolaunch.errors import UsageError

# Groups of commands: name -> (module, what it is for)
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "train": {
        "pretrain": (
            "nemolaunch.cli.pretrain",
            "train a model: locally, on the CPU as a rehearsal, or on Slurm",
        ),
        "resume": ("nemolaunch.cli.resume", "go on with a run from its last checkpoint"),
        "status": ("nemolaunch.cli.status", "show how a run stands, or all runs"),
        "follow": ("nemolaunch.cli.follow", "show a run on Slurm until it is over"),
        "logs": ("nemolaunch.cli.logs", "show what a rank of a run has written"),
        "cancel": ("nemolaunch.cli.cancel", "end a run and its queued jobs"),
        "diagnose": ("nemolaunch.cli.diagnose", "say why a run failed, and what to change"),
        "report": ("nemolaunch.cli.report", "draw one page about a run, or about several"),
        "tensorboard": (
            "nemolaunch.cli.tensorboard",
            "start TensorBoard about runs, and say how to reach it",
        ),
    },
    "plan": {
        "plan": ("nemolaunch.cli.plan", "check a job and show what would run, as text, YAML or JSON"),
        "generate-config": ("nemolaunch.cli.generate_config", "print a job as a complete YAML file"),
        "schema": ("nemolaunch.cli.schema", "print a JSON Schema of the YAML file, for editors"),
        "diff": ("nemolaunch.cli.diff", "show what differs between two runs"),
        "models": ("nemolaunch.cli.models", "list the models and configurations that can be named"),
        "count-params": ("nemolaunch.cli.count_params", "count a model's parameters"),
        "estimate-mem": (
            "nemolaunch.cli.estimate_mem",
            "estimate the memory of a GPU for a model in a layout",
        ),
        "suggest": ("nemolaunch.cli.suggest", "rank parallel layouts that fit by estimated step time"),
    },
    "data": {
        "download": ("nemolaunch.cli.download", "download text to train on, models and tokenizers"),
        "tokenize": ("nemolaunch.cli.tokenize", "turn text files into Megatron .bin/.idx"),
        "merge": ("nemolaunch.cli.merge", "join tokenised data sets, or blend them"),
        "inspect": ("nemolaunch.cli.inspect", "show and check tokenised data or checkpoints, compare two"),
        "data-audit": ("nemolaunch.cli.data_audit", "show how often each row of a stream was fed"),
    },
    "checkpoints": {
        "convert": ("nemolaunch.cli.convert", "convert a checkpoint to another format, and prove it"),
        "push": ("nemolaunch.cli.push", "upload a model to the Hugging Face Hub, with a card from its run"),
        "eval": ("nemolaunch.cli.eval", "measure a model: perplexity, benchmarks, each checkpoint of a run"),
        "generate": ("nemolaunch.cli.generate", "let a model continue prompts"),
        "fill-mask": ("nemolaunch.cli.fill_mask", "let a model fill the masked places of a text"),
        "chat": ("nemolaunch.cli.chat", "talk with a model"),
    },
    "this machine": {
        "doctor": ("nemolaunch.cli.doctor", "say what is wrong with this machine, and what to type"),
        "completion": ("nemolaunch.cli.completion", "print a script that completes commands in bash or zsh"),
    },
}
COMMANDS = {name: what for group in GROUPS.values() for name, what in group.items()}
EXIT_CODES = {
    0: "it worked",
    1: "it did not, or what was asked about is not well: a job with errors, a run that failed, corrupt data",
    2: "the command cannot be understood as it was typed",
    3: "status: Slurm cannot be asked",
    130: "Ctrl-C",
    141: "the reader of a pipe has gone",
}


def usage() -> str:
    """The text of `nemolaunch --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: nemolaunch COMMAND [options]", ""]
    lines += ["From raw text to a trained and exported model with NVIDIA NeMo 2."]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<{width}}  {about}" for name, (_, about) in commands.items()]
    lines += ["", "`nemolaunch COMMAND --help` tells the options of one, with an example."]
    lines += ["", "exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())]
    return "\n".join(lines)


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
        raise UsageError(f"there is no command {argv[0]!r}.{hint} `nemolaunch --help` lists them")
    return int(importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
