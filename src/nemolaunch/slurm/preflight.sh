# Print the nodes that preflights of this run found slow or sick.
unfit_nodes() { sed -n 2p "$run_folder/preflight/unfit" 2>/dev/null; }

# Have the queued successor start without them.
leave_out() {
    local next nodes
    nodes=$(unfit_nodes)
    if [ -z "$nodes" ] || [ ! -s "$state/next" ]; then return 1; fi
    next=$(cat "$state/next")
    nodes=${excluded_nodes:+$excluded_nodes,}$nodes
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
            stop_chain "the preflight found slow or sick nodes: $(unfit_nodes); continue without them: nemolaunch resume RUN --exclude-slow"
        fi
    fi
    (exit "$code")
    on_exit
}

trap on_exit_of_preflight EXIT
if [ "$exclude_slow" = 1 ]; then leave_out; fi
