"""What Slurm 22.05.8 (Debian 12) answers about a cluster of several kinds of nodes.

Recorded from its own slurmctld and slurmdbd with this configuration:

    NodeName=h[1-2] Gres=gpu:h100:8
    NodeName=a[1-6] Gres=gpu:a100:4
    NodeName=m[1-3] Gres=gpu:a100:6,gpu:nvidia_a100_1g.10gb:14
    NodeName=s1     Gres=gpu:2g.20gb:3,shard:8
    NodeName=c[1-4]
    PartitionName=large Nodes=a[1-6] MinNodes=2 MaxNodes=4 MaxTime=12:00:00 AllowAccounts=chemistry ...
    AccountingStorageEnforce=associations,limits,qos
    sacctmgr modify qos debug set MaxWall=00:30:00 MaxTRESPerJob=node=2
    sacctmgr modify qos brief set MaxWall=04:00:00 MaxTRESPerUser=gres/gpu=12
    sacctmgr modify qos large set MinTRES=node=2,gres/gpu=8 MaxTRESPerJob=gres/gpu=16,cpu=400 GrpTRES=node=3
"""

from __future__ import annotations

from pathlib import Path

# sinfo --noheader --format=%R|%l|%D|%G|%a|%F|%s
SINFO = """\
gpu|2-00:00:00|6|gpu:a100:4|up|0/6/0/6|1-infinite
gpu|2-00:00:00|2|gpu:h100:8|up|0/2/0/2|1-infinite
large|12:00:00|6|gpu:a100:4|up|0/6/0/6|2-4
slices|infinite|3|gpu:a100:6,gpu:nvidia_a100_1g.10gb:14|up|0/3/0/3|1-infinite
slices|infinite|1|gpu:2g.20gb:3,shard:8|up|0/1/0/1|1-infinite
cpu|1-00:00:00|4|(null)|up|0/4/0/4|1-infinite
old|1-00:00:00|2|gpu:a100:4|down|0/2/0/2|1-infinite
drained|infinite|2|gpu:a100:4|drain|0/2/0/2|1-infinite
gone|infinite|2|gpu:a100:4|inactive|0/2/0/2|1-infinite
"""

# scontrol --oneliner show partition
PARTITIONS = Path(__file__).with_name("recorded_slurm_partitions.txt").read_text(encoding="utf-8")

# scontrol show config
CONFIG = """\
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations,limits,qos
AccountingStorageHost   = 127.0.0.1
"""

# sacctmgr -nP show associations user=ada format=account,partition,qos,defaultqos,maxwall,maxtresperjob
ASSOCIATIONS = """\
physics||debug,normal|normal|10:00:00|node=4
chemistry||large,normal|large||
"""

# sacctmgr -nP show qos format=name,maxwall,maxtresperjob,maxtresperuser,mintresperjob,grptres; without flags
QUALITIES = """\
normal|||||
large||cpu=400,gres/gpu=16||gres/gpu=8,node=2|node=3
brief|04:00:00||gres/gpu=12||
debug|00:30:00|node=2|||
"""
