"""Plans for Slurm, made without looking at a disk or cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nemolaunch.data.blend import BlendSpec
from nemolaunch.facts import EarlierRun, Facts, Host
from nemolaunch.facts.data_files import DataFile
from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.facts.submission import Submission
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan
from nemolaunch.tokenizer.inspection import Tokenizer

BRIDGE = Interpreter(path="/opt/bridge env/bin/python", bridge="0.6.2", megatron="0.19.2")
DATA = "/data/corpus/preprocessed/en_text_document"

# Flags of each case; the golden file of the same name holds its script
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-container": {"container_image": "none", "gres": "none"},
    "nsys": {"profile": "nsys", "profile_steps": "20:22", "profile_ranks": ("0", "8")},
    "torchrun": {"launcher": "torchrun", "network_interface": "hsn0", "env_preset": ("slingshot", "debug")},
    "torchrun-no-container": {"launcher": "torchrun", "container_image": "none"},
    "all-options": {
        "qos": "high",
        "gres": "gpu:h100:8",
        "constraint": "ib&h100",
        "exclude": "n[01-03],n7",
        "reservation": "mine",
        "array": "1-10%1",
        "dependency": "afterok:12:13,after:14+5",
        "time": "3-12:00:00",
        "sbatch": ("nice=100", "no-kill", "exclusive=none", "mail_type=END,FAIL"),
        "index_mapping_dir": "/scratch/index",
        "nemo_model": "/models/base",
        "resume": "/models/older/checkpoints/step=5",
        "tensor_model_parallel_size": 2,
    },
    # Unquoted, each of these would end a word, run a command or be expanded
    "hostile": {
        "comment": "a 'b' \"c\" $HOME `id`; rm -rf ~ # 名前",
        "constraint": "[a*2&b|c]",
        "container_image": "registry.local#nvidia/nemo:26.02 $(id)",
        "container_mounts": ("/with space/$x:/with space;'", "/ünï/名前:/名前:ro"),
        "network_interface": "eth0;id",
        "env": ("A=a 'b' \"c\" $HOME `id` } ; # 名前", "lower_case=$x y", "EMPTY="),
        "sbatch": ("wckey=a b", "mail-user=a&b"),
    },
    "site-setup": {
        "modules": ("cuda/12.8", "nccl@2.27+cuda"),
        "setup": "/site/it's a $HOME `id` ; 名前.sh",
        "pre_commands": ('export A="it\'s"; ulimit -l unlimited # $(hostname)', "echo 'unbalanced"),
        "env": ("NCCL_DEBUG=WARN", "lower_case=$x y"),
        "container_image": "none",
    },
    "preflight": {"preflight": True, "exclude_slow": True, "exclude": "n[01-03],n7"},
    "apptainer": {
        "container_runtime": "apptainer",
        "container_image": "/images/nemo 26.02.sif",
        "container_mounts": ("/with space/$x:/with space;'", "/ünï/名前:/名前:ro"),
        "env": ("NCCL_DEBUG=WARN", "lower_case=$x y"),
        "launcher": "torchrun",
    },
    "podman": {
        "container_runtime": "podman",
        "container_mounts": ("/with space/$x:/with space;'", "/ünï/名前:/名前:ro"),
        "env": ("NCCL_DEBUG=WARN", "lower_case=$x y"),
    },
    "no-runtime": {"container_runtime": "none"},
    "bridge": {"backend": "bridge", "container_image": "nvcr.io/nvidia/nemo:26.08"},
    "bridge-no-container": {"backend": "bridge", "container_image": "none", "launcher": "torchrun"},
    "non-ascii-folder": {"output_dir": "/läufe/訓練/run", "container_image": "none"},
}


def plan_of(case: str, folder: str | None = None) -> Plan:
    """Return the plan of a case, in another run folder if one is given."""
    flags = {"output_dir": "/runs/llama", "experiment": "llama", **CASES[case]}
    if folder:
        flags["output_dir"] = folder
    job = Job().with_values(
        model_name="llama32_1b",
        executor="slurm",
        num_nodes=2,
        num_gpus=8,
        global_batch_size=64,
        max_steps=100,
        **flags,
    )
    facts = Facts(
        host=Host(),
        asked=BlendSpec(sources=((None, DATA),)),
        data=(
            DataFile(
                prefix=DATA, num_sequences=1000, num_tokens=10**8, split_tokens=(10**8, 0, 0), token_bytes=4
            ),
        ),
        tokenizer=Tokenizer(source="/models/tokenizer", folder="/models/tokenizer", vocab_size=128256),
        run=EarlierRun(folder=str(flags["output_dir"])),
        interpreter=BRIDGE if case == "bridge-no-container" else None,
        submission=Submission(number=1, bin="/opt/train env/bin", links=("/archive/corpus",)),
    )
    return dataclasses.replace(make_plan(job, facts=facts), versions={"nemolaunch": "0"})


def saved_plan(folder: Path) -> Plan:
    """Return the plan of a job without containers, saved in its run folder, which has a folder for logs."""
    plan = plan_of("no-container", str(folder))
    plan.run.logs.mkdir(parents=True)
    plan.save()
    return plan
