"""Plans for a container on this machine, made without an engine; and the recording of their command lines.

`python tests/golden/container_plans.py` records the files again, after an intended change. They hold one word a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemolaunch.containers.run import run_command
from nemolaunch.data.blend import BlendSpec
from nemolaunch.facts import EarlierRun, Facts, Host
from nemolaunch.facts.container_engine import ContainerHost, Engine
from nemolaunch.facts.data_files import DataFile
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan
from nemolaunch.tokenizer.inspection import Tokenizer

FOLDER = Path(__file__).parent / "container"
DATA = "/data/with space/en_text_document"
H100 = "NVIDIA H100 80GB HBM3"
MOUNTS = ("/with space/$x:/with space;'", "/ünï/名前:/名前:ro")
USER = "1000:1000"

# Flags, what is known about the engine, and GPUs of each case
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "docker": ({"executor": "docker", "container_mounts": MOUNTS, "env": ("GREETING=a b;c",)}, {}, 8),
    "docker-rehearsal": ({"executor": "docker", "container_image": "registry.local/nemo $(id):1"}, {}, 0),
    "podman": (
        {"executor": "podman", "container_mounts": MOUNTS},
        {"init": False, "raises_limits": False},
        8,
    ),
    "podman-root": ({"executor": "podman"}, {"user": "0:0", "cache": "/root/.cache/huggingface"}, 8),
    "apptainer": (
        {"executor": "apptainer", "container_mounts": MOUNTS, "env": ("GREETING=a b;c",)},
        {"image": "/images/nemo 26.02.sif"},
        8,
    ),
}


def plan_of(case: str) -> Plan:
    """The plan of a case."""
    flags, host, num_gpus = CASES[case]
    job = Job().with_values(
        model_name="llama32_1b",
        output_dir="/runs/llama",
        dataset_dir=[DATA],
        limit_val_batches=0,
        experiment="llama",
        global_batch_size=64,
        max_steps=100,
        precision="bf16" if num_gpus else "fp32",
        **flags,
    )
    launch = job.launch
    known = {
        "engine": launch.executor,
        "image": launch.container_image,
        "user": USER,
        "links": ("/archive",),
        **host,
    }
    facts = Facts(
        host=Host(gpus=(H100,) * num_gpus, gpu_memory_bytes=80 * 2**30, memory_bytes=2**40, num_cpus=64),
        asked=BlendSpec(sources=((None, DATA),)),
        data=(
            DataFile(
                prefix=DATA, num_sequences=1000, num_tokens=10**8, split_tokens=(10**8, 0, 0), token_bytes=4
            ),
        ),
        tokenizer=Tokenizer(source="/models/tokenizer", folder="/models/tokenizer", vocab_size=128256),
        run=EarlierRun(folder="/runs/llama"),
        container=ContainerHost(**known),
        engine=Engine(name=launch.executor, has_image=True),
    )
    return make_plan(job, facts=facts)


if __name__ == "__main__":
    for name in CASES:
        text = "".join(f"{word}\n" for word in run_command(plan_of(name)))
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
