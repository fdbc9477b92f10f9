"""Where and how a job runs.

Each field carries its command-line form; see `nemolaunch.job.fields.flag`. `None` means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.job.fields import flag

ENGINES = ("docker", "podman", "apptainer")
NO_CONTAINER = "none"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how the job runs."""

    executor: str = flag(
        "local",
        "where to run: on this machine, in this environment or in a container, or on Slurm",
        choices=("local", *ENGINES, "slurm"),
    )
    experiment: str = flag(
        "pretraining", "name of the run folder; letters, digits, '.', '_' and '-'", short="-E"
    )
    output_dir: str | None = flag(None, "run folder (default: runs/EXPERIMENT)", metavar="DIR")
    num_nodes: int = flag(1, "number of nodes", short="-N")
    num_gpus: int | None = flag(
        None,
        "processes per node (default: one per visible GPU; on the CPU, as many as the parallelism needs)",
        short="-G",
        aliases=("--gpus-per-node",),
    )
    account: str = flag("root", "Slurm account", short="-A")
    partition: str = flag("defq", "Slurm partition", short="-P")
    container_image: str = flag(
        "nvcr.io/nvidia/nemo:26.02",
        "container image on Slurm and with docker, podman and apptainer; none runs a Slurm job in the current "
        "environment",
        short="-I",
        metavar="IMAGE",
    )
    container_runtime: str = flag(
        "pyxis",
        "what runs the image on Slurm; none runs in the current environment",
        choices=("pyxis", "apptainer", "podman", "none"),
    )
    container_mounts: tuple[str, ...] = flag(
        (), "additional container mounts; the job's own paths are always mounted", metavar="SRC:DST"
    )
    time: str | None = flag(
        None, "time limit of each Slurm job, e.g. 3-00:00:00 (default: the partition's, else 1-00:00:00)"
    )
    device: str = flag(
        "auto",
        "device to train on; auto: the GPU on Slurm or if one is visible, otherwise the CPU",
        choices=("auto", "gpu", "cpu"),
    )
    backend: str = flag(
        "auto",
        "what trains the model: nemo2 (NeMo 2) or bridge (Megatron-Bridge); auto: what the container image or this "
        "environment has, NeMo 2 if it has both",
        choices=("auto", "nemo2", "bridge"),
    )
    python: str | None = flag(
        None,
        "interpreter of the environment that has Megatron-Bridge (default: .venv-bridge/bin/python if there is one, "
        "else the one that runs this command)",
        metavar="PATH",
    )
    launcher: str = flag(
        "srun",
        "what starts the ranks on Slurm: srun (one task per rank) or torchrun (once per node)",
        choices=("srun", "torchrun"),
    )
    keep_warm: float | None = flag(
        None,
        "on this machine's CPU: fork the ranks from a process that has imported the framework, and keep it this long "
        "for further runs, which start within seconds",
        metavar="MINUTES",
    )
    detach: bool = flag(
        False, "return once the Slurm job is submitted or the container started, instead of following the run"
    )
    chain: bool = flag(True, "have each Slurm job queue its successor until training has finished")
    max_failures: int = flag(
        3,
        "end the run after this many consecutive attempts without a new checkpoint",
        aliases=("--give-up-after",),
    )
    exit_margin: int | None = flag(
        None,
        "save and exit this long before the time limit (default: twice the longest save, at least 2 minutes)",
        aliases=("--leave-before",),
        metavar="SECONDS",
    )
    qos: str | None = flag(None, "Slurm quality of service")
    gres: str | None = flag(
        None, "Slurm generic resources per node, instead of --gpus-per-node; none requests nothing"
    )
    constraint: str | None = flag(None, "Slurm features that the nodes must have")
    exclude: str | None = flag(None, "nodes that must not be used", metavar="NODES")
    reservation: str | None = flag(None, "Slurm reservation")
    comment: str | None = flag(None, "comment of the Slurm job")
    dependency: str | None = flag(
        None, "start only after other Slurm jobs have ended, e.g. afterok:1234", metavar="WHEN:JOB"
    )
    array: str | None = flag(None, "run as a chain of array tasks, e.g. 1-10%1", metavar="RANGE")
    sbatch: tuple[str, ...] = flag((), "any other sbatch option, without its dashes", metavar="KEY=VALUE")
    modules: tuple[str, ...] = flag(
        (), "environment modules that a Slurm job loads before its ranks start", metavar="NAME"
    )
    setup: str | None = flag(
        None, "shell script of the site that a Slurm job sources before its ranks start", metavar="FILE"
    )
    pre_commands: tuple[str, ...] = flag(
        (), "shell commands that a Slurm job runs before its ranks start, after --setup", metavar="COMMAND"
    )
    network_interface: str | None = flag(
        None, "network interface between nodes, e.g. hsn0 (sets NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME)"
    )
    env_preset: tuple[str, ...] = flag(
        (),
        "named sets of environment variables: slingshot, efa, gb200, save-memory, fused-attention, "
        "deterministic, debug",
        metavar="NAME",
    )
    env: tuple[str, ...] = flag(
        (),
        "environment variables of the training processes; NAME alone passes on the shell's value, as secrets need",
        metavar="NAME[=VALUE]",
    )
    preset: str | None = flag(
        None,
        "flags tuned for a model on a GPU: a built-in preset or a YAML file; flags and --config override it",
        metavar="NAME",
    )
    gpu: str | None = flag(
        None,
        "GPU to estimate memory and time for, e.g. h200 (default: the one in this machine, else h100)",
        metavar="NAME",
    )

    @property
    def is_here(self) -> bool:
        """Whether the job runs on this machine, with its GPUs, memory and disk."""
        return self.executor != "slurm"

    @property
    def engine(self) -> str | None:
        """What runs the container of a job on this machine; None if it runs in this environment, or on Slurm."""
        return self.executor if self.executor in ENGINES else None

    @property
    def runtime(self) -> str | None:
        """What runs the job's container, here or on Slurm; None if it has none."""
        if self.executor != "slurm":
            return self.engine
        without = NO_CONTAINER in (self.container_image, self.container_runtime)
        return None if without else self.container_runtime
