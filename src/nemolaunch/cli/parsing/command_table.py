"""Every command: its group, its module, and what it is for."""

from __future__ import annotations

# Groups of commands: name -> (module, what it is for)
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "train": {
        "pretrain": (
            "nemolaunch.cli.commands.pretrain",
            "train a model: locally, on the CPU as a rehearsal, or on Slurm",
        ),
        "resume": ("nemolaunch.cli.commands.resume", "go on with a run from its last checkpoint"),
        "status": ("nemolaunch.cli.commands.status", "show how a run stands, or all runs"),
        "follow": ("nemolaunch.cli.commands.follow", "show a run on Slurm until it is over"),
        "logs": ("nemolaunch.cli.commands.logs", "show what a rank of a run has written"),
        "cancel": ("nemolaunch.cli.commands.cancel", "end a run and its queued jobs"),
        "diagnose": ("nemolaunch.cli.commands.diagnose", "say why a run failed, and what to change"),
        "report": ("nemolaunch.cli.commands.report", "draw one page about a run, or about several"),
        "tensorboard": (
            "nemolaunch.cli.commands.tensorboard",
            "start TensorBoard about runs, and say how to reach it",
        ),
    },
    "plan": {
        "plan": (
            "nemolaunch.cli.commands.plan",
            "check a job and show what would run, as text, YAML or JSON",
        ),
        "generate-config": ("nemolaunch.cli.commands.generate_config", "print a job as a complete YAML file"),
        "schema": ("nemolaunch.cli.commands.schema", "print a JSON Schema of the YAML file, for editors"),
        "diff": ("nemolaunch.cli.commands.diff", "show what differs between two runs"),
        "models": ("nemolaunch.cli.commands.models", "list the models and configurations that can be named"),
        "count-params": ("nemolaunch.cli.commands.count_params", "count a model's parameters"),
        "estimate-mem": (
            "nemolaunch.cli.commands.estimate_mem",
            "estimate the memory of a GPU for a model in a layout",
        ),
        "suggest": (
            "nemolaunch.cli.commands.suggest",
            "rank parallel layouts that fit by estimated step time",
        ),
    },
    "data": {
        "download": ("nemolaunch.cli.commands.download", "download text to train on, models and tokenizers"),
        "tokenize": ("nemolaunch.cli.commands.tokenize", "turn text files into Megatron .bin/.idx"),
        "merge": ("nemolaunch.cli.commands.merge", "join tokenised data sets, or blend them"),
        "inspect": (
            "nemolaunch.cli.commands.inspect",
            "show and check tokenised data or checkpoints, compare two",
        ),
        "data-audit": ("nemolaunch.cli.commands.data_audit", "show how often each row of a stream was fed"),
    },
    "checkpoints": {
        "convert": (
            "nemolaunch.cli.commands.convert",
            "convert a checkpoint to another format, and prove it",
        ),
        "push": (
            "nemolaunch.cli.commands.push",
            "upload a model to the Hugging Face Hub, with a card from its run",
        ),
        "eval": (
            "nemolaunch.cli.commands.eval",
            "measure a model: perplexity, benchmarks, each checkpoint of a run",
        ),
        "generate": ("nemolaunch.cli.commands.generate", "let a model continue prompts"),
        "fill-mask": ("nemolaunch.cli.commands.fill_mask", "let a model fill the masked places of a text"),
        "chat": ("nemolaunch.cli.commands.chat", "talk with a model"),
    },
    "this machine": {
        "doctor": ("nemolaunch.cli.commands.doctor", "say what is wrong with this machine, and what to type"),
        "completion": (
            "nemolaunch.cli.commands.completion",
            "print a script that completes commands in bash or zsh",
        ),
    },
}
COMMANDS = {name: what for group in GROUPS.values() for name, what in group.items()}
