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
export PET_SIGNALS_TO_HANDLE=SIGINT
export PATH='/opt/bridge env/bin':"$PATH"
srun --chdir /runs/llama/preflight/code --kill-on-bad-exit=0 --mpi=none --distribution=block --cpu-bind=none '/opt/bridge env/bin/python' -W 'ignore:The pynvml package is deprecated' -m nemolaunch.preflight.rank --run /runs/llama --device gpu --tolerance 0.15 --data /data/corpus/preprocessed/en_text_document.bin --attempt "$SLURM_JOB_ID.0"
