# Print the nodes that preflights of this run found slow or sick.
unfit_nodes() { sed -n 2p "$run_folder/preflight/unfit" 2>/dev/null; }

# Return whether the job can never start if it must not use nodes $1: Slurm would queue it for ever.
too_few_without() {
    local name
    (
        for name in $(compgen -e SLURM_) $(compgen -e SBATCH_); do
            case $name in SLURM_CONF | SLURM_CONF_SERVER | SLURM_JWT) ;; *) unset "$name" ;; esac
        done
        timeout 60 sbatch --test-only --exclude="$1" "$batch_script" 2>&1
    ) | grep -q 'node configuration is not available'
}

# Have the queued successor start without them.
leave_out() {
    local next nodes
    nodes=$(unfit_nodes)
    if [ -z "$nodes" ] || [ ! -s "$state/next" ]; then return 1; fi
    next=$(cat "$state/next")
    nodes=${excluded_nodes:+$excluded_nodes,}$nodes
    if too_few_without "$nodes"; then
        say "too few nodes are left without $nodes"
        return 1
    fi
    timeout 60 scontrol update "JobId=$next" "ExcNodeList=$nodes" || return 1
    say "job $next starts without $nodes"
}

# Before the exit of the guard: if the preflight ended this attempt, starting it again on the same nodes is useless.
on_exit_of_preflight() {
    local code=$?
    set +e
    if [ "$(head -n 1 "$run_folder/preflight/unfit" 2>/dev/null)" = "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" ]; then
        code=$((code ? code : 1))
        if [ "$exclude_slow" = 1 ] && [ "$chain" = 1 ] && leave_out; then
            chain=0 # the successor takes over, instead of this job once more
        elif [ ! -e "$state/stopped" ]; then
            stop_chain "the preflight found slow or sick nodes: $(unfit_nodes); continue on others: nemolaunch resume RUN --exclude-slow"
        fi
    fi
    (exit "$code")
    on_exit
}

trap on_exit_of_preflight EXIT
if [ "$exclude_slow" = 1 ]; then leave_out; fi
