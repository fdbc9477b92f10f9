"""`--cluster NAME`: what is the same for every job on a cluster, from `~/.config/nemolaunch/clusters/NAME.yaml`."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.yaml_file import checked_flags, read_yaml
from nemolaunch.errors import UsageError
from nemolaunch.job import field_name

# Keys of a profile that are not named like a flag of the job, and the field each sets
SHORT_KEYS = {"image": "container_image", "mounts": "container_mounts", "network_preset": "env_preset"}
FIELDS = (
    "account", "partition", "container_image", "container_mounts", "time", "launcher", "modules", "setup",
    "pre_commands", "network_interface", "env_preset", "env", "qos", "gres", "constraint", "exclude", "reservation",
    "sbatch", "num_gpus", "gpu", "container_runtime",
)  # fmt: skip
SSH_KEYS = {"ssh": "ssh", "ssh_host": "ssh", "ssh_python": "ssh_python"}
HELP = (
    "profile of a cluster: account, partition, image, modules, …, in ~/.config/nemolaunch/clusters/NAME.yaml"
)


@dataclass(frozen=True, kw_only=True)
class ClusterProfile:
    """A cluster's profile.

    Attributes:
        path: of the file.
        values: of the job's fields, by name.
        ssh, ssh_python: how to reach its login node; None if not given.
    """

    name: str
    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    ssh: str | None = None
    ssh_python: str | None = None


def add_cluster_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--cluster`."""
    parser.add_argument("--cluster", metavar="NAME", help=f"{HELP}; implies --executor slurm")


def profiles_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that holds the user's profiles."""
    config = environment.get("XDG_CONFIG_HOME", "")
    home = Path(config) if os.path.isabs(config) else Path("~/.config").expanduser()
    return home / "nemolaunch" / "clusters"


def read_profile(name: str) -> ClusterProfile:
    """Return the profile of that name, or in that YAML file.

    Raises:
        UsageError: there is none, or it has a key or value that a profile cannot have.
    """
    path = _path_of(name)
    where = f"--cluster {path}: "
    values: dict[str, Any] = {"executor": "slurm"}
    ssh: dict[str, str] = {}
    problems = []
    content = read_yaml(path, "--cluster")
    for key, value in content.items():
        word = str(key).replace("-", "_")
        target = SHORT_KEYS.get(word) or field_name(word)
        if word in SSH_KEYS and isinstance(value, str) and value.strip():
            ssh[SSH_KEYS[word]] = value
        elif target in FIELDS:
            values[target] = value
        else:
            problems.append(_problem(key, word, value))
    if values.get("container_runtime") == "none" and values.get("container_image", "none") != "none":
        problems.append("container-runtime none runs no image; drop one of them")
    if problems:
        raise UsageError(where + "; ".join(problems))
    return ClusterProfile(name=path.stem, path=path, values=checked_flags(values, where), **ssh)


def _path_of(name: str) -> Path:
    if os.sep in name or name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    folder = profiles_folder()
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in folder.glob("*.yaml")) if folder.is_dir() else []
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}" if known else ""
        raise UsageError(f"--cluster {name}: there is no profile {path}{meant}")
    return path


def _problem(key: object, word: str, value: object) -> str:
    """Say what is wrong with a key: its value, or its name, with the nearest one."""
    if word in SSH_KEYS:
        return f"{key} takes a host or path, not {value!r}"
    keys = [name.replace("_", "-") for name in (*SHORT_KEYS, *FIELDS, *SSH_KEYS)]
    near = difflib.get_close_matches(word.replace("_", "-"), keys, n=1)
    if near:
        return f"a profile has no key {key!r}; did you mean {near[0]}?"
    return f"a profile has no key {key!r}: it describes a cluster, with {', '.join(sorted(keys))}"


def profile_of(given: dict[str, Any]) -> ClusterProfile | None:
    """Take `--cluster` out of parsed flags and return its profile; None if it is not given."""
    name = given.pop("cluster", None)
    return read_profile(name) if name else None
