"""The configuration files of the test cluster, and why they are as they are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

NUM_GPUS = 4
CPUS = 16

# cred_expire is also how long a requeued job is held (120 s by default, 5 is the least);
# config_overrides lets nodes claim more cores than the machine has; jobs start at once with the scheduler's
# delays off; SlurmdTimeout decides how soon a dead node is noticed. KillWait is below MessageTimeout: else a node
# answers a request to end a step too late, the controller sends it again after a minute, and it ends the step of
# that number in the restarted job. Where requeued jobs are held for the default two minutes that cannot be.
_SLURM = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
{dependencies}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=6
MessageTimeout=10
UnkillableStepTimeout=30
CompleteWait=0
JobRequeue=1
PlugStackConfig={folder}/plugstack.conf
GresTypes=gpu
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=7-00:00:00 State=UP PriorityTier=1 GraceTime=30
PartitionName=short Nodes=ALL MaxTime=00:30:00 State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""

# Without the password, which here is munge's socket, slurmctld looks for munge in /run.
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
AccountingStoragePass={folder}/run/munge.socket"""

_SLURMDBD = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={database_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=root
StorageLoc=slurm_acct
CommitDelay=0
"""

# One slurmd per address and port.
_NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr={address} Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=8000 Gres=gpu:{gpus} Feature=ib State=UNKNOWN"
)


def write(
    folder: Path,
    *,
    controller_port: int,
    database_port: int | None,
    sql_port: int,
    node_ports: dict[str, int],
    spank: str,
    drops_hopeless_jobs: bool = True,
) -> None:
    """Write every file the daemons read. GPUs are character devices, as Slurm insists on."""
    host = socket.gethostname().split(".")[0]
    addresses = {name: f"127.0.1.{i + 1}" for i, name in enumerate(node_ports)}
    nodes = "\n".join(
        _NODE.format(name=name, address=addresses[name], port=port, cpus=CPUS, gpus=NUM_GPUS)
        for name, port in node_ports.items()
    )
    values = {"folder": folder, "host": host, "controller_port": controller_port, "nodes": nodes}
    values["dependencies"] = "DependencyParameters=kill_invalid_depend" if drops_hopeless_jobs else ""
    ports = {"folder": folder, "database_port": database_port, "sql_port": sql_port}
    accounting = (
        _ACCOUNTING.format(**ports) if database_port else "AccountingStorageType=accounting_storage/none"
    )
    (folder / "slurm.conf").write_text(_SLURM.format(**values, accounting=accounting))
    (folder / "slurmdbd.conf").write_text(_SLURMDBD.format(**ports))
    (folder / "slurmdbd.conf").chmod(0o600)
    (folder / "plugstack.conf").write_text(spank)
    hosts = [f"127.0.0.1 localhost {host}"] + [f"{address} {name}" for name, address in addresses.items()]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    for i in range(NUM_GPUS):
        os.mknod(folder / f"nvidia{i}", 0o20666, os.makedev(195, i))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/nvidia[0-{NUM_GPUS - 1}]\n")
