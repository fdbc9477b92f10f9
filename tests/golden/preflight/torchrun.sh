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
export NCCL_NET=${NCCL_NET:-'AWS Libfabric'}
export NCCL_NET_GDR_LEVEL=${NCCL_NET_GDR_LEVEL:-PHB}
export NCCL_CROSS_NIC=${NCCL_CROSS_NIC:-1}
export FI_CXI_DISABLE_HOST_REGISTER=${FI_CXI_DISABLE_HOST_REGISTER:-1}
export FI_CXI_DEFAULT_CQ_SIZE=${FI_CXI_DEFAULT_CQ_SIZE:-131072}
export FI_MR_CACHE_MONITOR=${FI_MR_CACHE_MONITOR:-userfaultfd}
export NCCL_DEBUG=${NCCL_DEBUG:-INFO}
export NCCL_DEBUG_SUBSYS=${NCCL_DEBUG_SUBSYS:-INIT,NET,ENV}
export TORCH_DISTRIBUTED_DEBUG=${TORCH_DISTRIBUTED_DEBUG:-DETAIL}
export NCCL_SOCKET_IFNAME=hsn0
export GLOO_SOCKET_IFNAME=hsn0
export PET_SIGNALS_TO_HANDLE=SIGINT
srun --container-image nvcr.io/nvidia/nemo:26.02 --container-mounts /data/corpus/preprocessed:/data/corpus/preprocessed,/archive/corpus:/archive/corpus,/runs/llama:/runs/llama --container-workdir /runs/llama/preflight/code --container-env FI_CXI_DEFAULT_CQ_SIZE,FI_CXI_DISABLE_HOST_REGISTER,FI_MR_CACHE_MONITOR,GLOO_SOCKET_IFNAME,HF_HUB_OFFLINE,NCCL_CROSS_NIC,NCCL_DEBUG,NCCL_DEBUG_SUBSYS,NCCL_NET,NCCL_NET_GDR_LEVEL,NCCL_SOCKET_IFNAME,NVTE_BWD_LAYERNORM_SM_MARGIN,NVTE_FWD_LAYERNORM_SM_MARGIN,PET_SIGNALS_TO_HANDLE,TOKENIZERS_PARALLELISM,TORCH_DISTRIBUTED_DEBUG,TORCH_NCCL_AVOID_RECORD_STREAMS --no-container-mount-home --container-writable --kill-on-bad-exit=0 --mpi=none --distribution=block --cpu-bind=none python -W 'ignore:The pynvml package is deprecated' -m nemolaunch.preflight.rank --run /runs/llama --device gpu --tolerance 0.15 --data /data/corpus/preprocessed/en_text_document.bin --attempt "$SLURM_JOB_ID.0"
