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
on_exit() {
    local code=$?
    if [ -n "$site_step" ]; then echo "nemolaunch: the set-up of the job failed with code $code: $site_step"; fi
    exit "$code"
}
# Define the function `module`, unless a login shell has done so: a job submitted over SSH has not inherited it.
find_modules() {
    local file
    for file in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" \
        /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /etc/profile.d/z01_lmod.sh /etc/profile.d/modules.sh; do
        if type -t module > /dev/null; then return; fi
        if [ -r "$file" ]; then . "$file"; fi
    done
}

# End this attempt if the site's last command failed; on_exit says which one it was.
site_check() {
    if [ "$1" != 0 ]; then exit "$1"; fi
}

# Remove the variables of Slurm that the site's commands have set: they override the options of srun.
site_forget_slurm() {
    local name
    for name in $(compgen -e SLURM_) $(compgen -e SBATCH_) $(compgen -e SRUN_); do
        case $name in SLURM_CONF | SLURM_CONF_SERVER | SLURM_JWT) ;; *) unset "$name" ;; esac
    done
}

site_options=$(set +o)
site_slurm=$(export -p | grep '^declare -x \(SLURM\|SRUN\)_[A-Z0-9_]*="[^"]*"$')
site_step='module load cuda/12.8 nccl@2.27+cuda'
find_modules; module load cuda/12.8 nccl@2.27+cuda
site_check $?
site_step='. '"'"'/site/it'"'"'"'"'"'"'"'"'s a $HOME `id` ; 名前.sh'"'"''
. '/site/it'"'"'s a $HOME `id` ; 名前.sh'
site_check $?
site_step='export A="it'"'"'s"; ulimit -l unlimited # $(hostname)'
eval 'export A="it'"'"'s"; ulimit -l unlimited # $(hostname)'
site_check $?
site_step='echo '"'"'unbalanced'
eval 'echo '"'"'unbalanced'
site_check $?
site_step=
eval "$site_options"
trap on_exit EXIT
trap : TERM USR1 USR2
site_forget_slurm
eval "$site_slurm"
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}
export TORCH_NCCL_AVOID_RECORD_STREAMS=${TORCH_NCCL_AVOID_RECORD_STREAMS:-1}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export NVTE_FWD_LAYERNORM_SM_MARGIN=${NVTE_FWD_LAYERNORM_SM_MARGIN:-16}
export NVTE_BWD_LAYERNORM_SM_MARGIN=${NVTE_BWD_LAYERNORM_SM_MARGIN:-16}
export NCCL_DEBUG=WARN
export PATH='/opt/train env/bin':"$PATH"
export lower_case='$x y'
srun --chdir /runs/llama/preflight/code --kill-on-bad-exit=0 --mpi=none --distribution=block --cpu-bind=none python -W 'ignore:The pynvml package is deprecated' -m nemolaunch.preflight.rank --run /runs/llama --device gpu --tolerance 0.15 --data /data/corpus/preprocessed/en_text_document.bin --attempt "$SLURM_JOB_ID.0"
