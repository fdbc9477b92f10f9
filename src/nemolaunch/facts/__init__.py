"""Everything that inspects the outside world: host, data, tokenizer, checkpoints, Slurm cluster, stream sources."""

from nemolaunch.facts.host import Host, installed_versions, look_at_host
from nemolaunch.facts.look import (
    SECRET_NAMES,
    EarlierRun,
    Facts,
    Image,
    Tokenizer,
    look,
    passed_here,
    run_folder,
    secrets_here,
)  # fmt: skip

__all__ = [
    "SECRET_NAMES", "EarlierRun", "Facts", "Host", "Image", "Tokenizer", "installed_versions", "look", "look_at_host",
    "passed_here", "run_folder", "secrets_here",
]  # fmt: skip
