#!/bin/bash
#SBATCH --account=root
#SBATCH --constraint='ib&h100'
#SBATCH --exclude='n[01-03],n7'
#SBATCH --gres=gpu:h100:8
#SBATCH --job-name=preflight-llama-cbd82222
#SBATCH --mail-type=END,FAIL
#SBATCH --mem=0
#SBATCH --nice=100
#SBATCH --no-kill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --output=/runs/llama/preflight/job-%j.out
#SBATCH --partition=defq
#SBATCH --qos=high
#SBATCH --reservation=mine
#SBATCH --time=3-12:00:00
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}
export TORCH_NCCL_AVOID_RECORD_STREAMS=${TORCH_NCCL_AVOID_RECORD_STREAMS:-1}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
export NVTE_FWD_LAYERNORM_SM_MARGIN=${NVTE_FWD_LAYERNORM_SM_MARGIN:-16}
export NVTE_BWD_LAYERNORM_SM_MARGIN=${NVTE_BWD_LAYERNORM_SM_MARGIN:-16}
srun --container-image nvcr.io/nvidia/nemo:26.02 --container-mounts /data/corpus/preprocessed:/data/corpus/preprocessed,/archive/corpus:/archive/corpus,/runs/llama:/runs/llama,/scratch/index:/scratch/index,/models/base:/models/base,/models/older/checkpoints/step=5:/models/older/checkpoints/step=5 --container-workdir /runs/llama/preflight/code --container-env CUDA_DEVICE_MAX_CONNECTIONS,HF_HUB_OFFLINE,NVTE_BWD_LAYERNORM_SM_MARGIN,NVTE_FWD_LAYERNORM_SM_MARGIN,TOKENIZERS_PARALLELISM,TORCH_NCCL_AVOID_RECORD_STREAMS --no-container-mount-home --container-writable --kill-on-bad-exit=0 --mpi=none --distribution=block --cpu-bind=none python -W 'ignore:The pynvml package is deprecated' -m nemolaunch.preflight.rank --run /runs/llama --device gpu --tolerance 0.15 --data /data/corpus/preprocessed/en_text_document.bin --attempt "$SLURM_JOB_ID.0"
