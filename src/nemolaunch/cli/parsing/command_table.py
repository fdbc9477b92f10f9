"""Every command: its group, its name, and what it is for."""

from __future__ import annotations

# name of a group -> command -> what it is for
GROUPS: dict[str, dict[str, str]] = {
    "train": {
        "pretrain": "train a model: locally, on the CPU as a rehearsal, or on Slurm",
        "sweep": "train a run for each combination of values, planned and compared as one",
        "ladder": "train sizes of one family, fit a scaling law, predict a larger run",
        "preflight": "measure the nodes of a job, and name those that are slow or sick",
        "resume": "resume a run from its last checkpoint",
        "upload": "upload to an object store what a run has not uploaded yet",
        "migrate": "continue a run under the other framework: NeMo 2 or Megatron-Bridge",
        "status": "show the status of a run, or of all runs",
        "tag": "give a run tags and notes",
        "follow": "follow a run on Slurm until it ends",
        "logs": "show the log of a rank of a run",
        "cancel": "stop a run and cancel its queued jobs",
        "diagnose": "explain why a run failed, and what to change",
        "report": "write a one-page report about one or several runs",
        "tensorboard": "start TensorBoard for runs, and print how to reach it",
    },
    "plan": {
        "plan": "check a job and show what would run, as text, YAML or JSON",
        "generate-config": "print a job as a complete YAML file",
        "schema": "print the JSON Schema of the YAML file, for editors",
        "diff": "show how two runs differ, in settings and in results",
        "models": "list the available models and configurations",
        "count-params": "count a model's parameters",
        "estimate-mem": "estimate the GPU memory of a model in a parallel layout",
        "suggest": "rank parallel layouts that fit by estimated step time",
    },
    "data": {
        "download": "download training text, models and tokenizers",
        "tokenize": "turn text files into Megatron .bin/.idx",
        "prepare-index": "build the index of a job's data on a CPU, before the job",
        "merge": "concatenate tokenised datasets, or blend them",
        "inspect": "show and check tokenised data or checkpoints, or compare two",
        "data-audit": "show how often each row of a stream was used",
    },
    "checkpoints": {
        "convert": "convert a checkpoint to another format, and verify the result",
        "push": "upload a model to the Hugging Face Hub, with a card from its run",
        "eval": "evaluate a model: perplexity, benchmarks, every checkpoint of a run",
        "generate": "continue prompts with a model",
        "fill-mask": "fill in the masked tokens of a text",
        "chat": "chat with a model",
    },
    "this machine": {
        "doctor": "check this machine, and print the commands that fix what is wrong",
        "completion": "print a completion script for bash, zsh or fish",
    },
}
# command -> what it is for
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}


def module_of(command: str) -> str:
    """Return the name of the module with a command's `parser` and `main`."""
    return "nemolaunch.cli.commands." + command.replace("-", "_")
