#!/bin/bash
#SBATCH --account=root
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=preflight-llama-cbd82222
#SBATCH --mem=0
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --output=/runs/llama/preflight/job-%j.out
#SBATCH --partition=defq
#SBATCH --time=20
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}
export TORCH_NCCL_AVOID_RECORD_STREAMS=${TORCH_NCCL_AVOID_RECORD_STREAMS:-1}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export NVTE_FWD_LAYERNORM_SM_MARGIN=${NVTE_FWD_LAYERNORM_SM_MARGIN:-16}
export NVTE_BWD_LAYERNORM_SM_MARGIN=${NVTE_BWD_LAYERNORM_SM_MARGIN:-16}
export NCCL_DEBUG=WARN
export lower_case='$x y'
srun --chdir /runs/llama/preflight/code --kill-on-bad-exit=0 --mpi=none --distribution=block --cpu-bind=none podman run --rm --network host --ipc host --ulimit host --device nvidia.com/gpu=all --security-opt label=disable --user 0:0 --workdir /runs/llama/preflight/code --volume /data/corpus/preprocessed:/data/corpus/preprocessed --volume /archive/corpus:/archive/corpus --volume /runs/llama:/runs/llama --volume '/with space/$x:/with space;'"'"'' --volume '/ünï/名前:/名前:ro' --env HOME=/tmp --env PYTHONNOUSERSITE=1 --env 'SLURM_*' --env 'MASTER_*' --env 'PET_*' --env LOGLEVEL --env PYTHONUNBUFFERED --env HF_TOKEN --env 'WANDB_*' --env 'MLFLOW_*' --env 'AWS_*' --env HF_HUB_OFFLINE --env NCCL_DEBUG --env NVTE_BWD_LAYERNORM_SM_MARGIN --env NVTE_FWD_LAYERNORM_SM_MARGIN --env TOKENIZERS_PARALLELISM --env TORCH_NCCL_AVOID_RECORD_STREAMS --env lower_case nvcr.io/nvidia/nemo:26.02 python -W 'ignore:The pynvml package is deprecated' -m nemolaunch.preflight.rank --run /runs/llama --device gpu --tolerance 0.15 --data /data/corpus/preprocessed/en_text_document.bin --attempt "$SLURM_JOB_ID.0"
