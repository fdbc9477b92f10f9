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
