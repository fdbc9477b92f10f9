"""Every command: its group, its name, and what it is for."""

from __future__ import annotations

# name of a group -> command -> what it is for
GROUPS: dict[str, dict[str, str]] = {
    "train": {
        "pretrain": "train a model: locally, on the CPU as a rehearsal, or on Slurm",
        "resume": "go on with a run from its last checkpoint",
        "status": "show how a run stands, or all runs",
        "follow": "show a run on Slurm until it is over",
        "logs": "show what a rank of a run has written",
        "cancel": "end a run and its queued jobs",
        "diagnose": "say why a run failed, and what to change",
        "report": "draw one page about a run, or about several",
        "tensorboard": "start TensorBoard about runs, and say how to reach it",
    },
    "plan": {
        "plan": "check a job and show what would run, as text, YAML or JSON",
        "generate-config": "print a job as a complete YAML file",
        "schema": "print a JSON Schema of the YAML file, for editors",
        "diff": "show what differs between two runs",
        "models": "list the models and configurations that can be named",
        "count-params": "count a model's parameters",
        "estimate-mem": "estimate the memory of a GPU for a model in a layout",
        "suggest": "rank parallel layouts that fit by estimated step time",
    },
    "data": {
        "download": "download text to train on, models and tokenizers",
        "tokenize": "turn text files into Megatron .bin/.idx",
        "merge": "join tokenised data sets, or blend them",
        "inspect": "show and check tokenised data or checkpoints, compare two",
        "data-audit": "show how often each row of a stream was fed",
    },
    "checkpoints": {
        "convert": "convert a checkpoint to another format, and prove it",
        "push": "upload a model to the Hugging Face Hub, with a card from its run",
        "eval": "measure a model: perplexity, benchmarks, each checkpoint of a run",
        "generate": "let a model continue prompts",
        "fill-mask": "let a model fill the masked places of a text",
        "chat": "talk with a model",
    },
    "this machine": {
        "doctor": "say what is wrong with this machine, and what to type",
        "completion": "print a script that completes commands in bash or zsh",
    },
}
# command -> what it is for
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}


def module_of(command: str) -> str:
    """Return the name of the module with a command's `parser` and `main`."""
    return "nemolaunch.cli.commands." + command.replace("-", "_")
