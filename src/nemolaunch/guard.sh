say() { printf 'nemolaunch: %s\n' "$*"; }

# State of a job, from the controller or, when it has forgotten, from the accounting.
state_of() {
    local state
    state=$(scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p' | head -n 1)
    [ -n "$state" ] || state=$(sacct -nXP -j "$1" -o State 2>/dev/null | head -n 1)
    printf '%s\n' "${state%% *}"
}

# Step of the newest complete checkpoint; -1 where there is none.
newest_step() {
    local name step newest=-1
    for name in "$run_folder"/checkpoints/*-step=*; do
        [ -d "$name" ] && [ ! -e "$name-unfinished" ] || continue
        step=${name##*-step=}
        step=${step%%[!0-9]*}
        if [ "${step:--1}" -gt "$newest" ]; then newest=$step; fi
    done
    printf '%s\n' "$newest"
}

# How many starts in a row, the newest before this one, found the same newest checkpoint.
starts_without_progress() {
    local job restart time step rest count=0
    while read -r job restart time step rest; do
        if [ "$step" = "$1" ]; then count=$((count + 1)); else count=0; fi
    done < "$state/starts"
    printf '%s\n' "$count"
}

# Ends the chain, for a reason that is kept.
stop_chain() {
    printf '%s\n' "$*" > "$state/stopped.$$" && mv "$state/stopped.$$" "$state/stopped"
    say "$*"
    cancel_next
}

cancel_next() {
    if [ -s "$state/next" ]; then scancel "$(cat "$state/next")" 2>/dev/null; fi
    rm -f "$state/next"
}

# Queues the job that goes on after this one, however this one ends.
queue_next() {
    local next name this=$SLURM_JOB_ID
    if [ -s "$state/next" ]; then
        next=$(cat "$state/next")
        if [ "$next" != "$this" ] && [ "$(state_of "$next")" = PENDING ]; then return; fi
    fi
    next=$(
        for name in $(compgen -e SLURM_); do
            if [ "$name" != SLURM_CONF ]; then unset "$name"; fi
        done
        sbatch --requeue --parsable --dependency="afterany:$this,singleton" "$batch_script"
    ) || { say "cannot queue the next job from a node of this cluster; nemolaunch resume goes on by hand"; return; }
    printf '%s\n' "${next%%;*}" > "$state/next"
    say "job ${next%%;*} goes on if this one does not finish"
}

leave() {
    local code=$?
    if [ -e "$run_folder/finished.json" ]; then
        say "finished"
        cancel_next
    elif [ -e "$state/stopped" ]; then
        cancel_next
    else
        say "left with code $code at checkpoint $(newest_step)"
    fi
    exit "$code"
}

state=$run_folder/slurm
mkdir -p "$state"
touch "$state/starts"
trap leave EXIT
trap : TERM USR1 USR2
if [ -e "$run_folder/finished.json" ]; then exit 0; fi
if [ -e "$state/stopped" ]; then
    say "not started: $(cat "$state/stopped")"
    exit 0
fi
before=
if [ -e "$state/current" ]; then read -r before _ < "$state/current"; fi
if [ -n "$before" ] && [ "$before" != "$SLURM_JOB_ID" ]; then
    case $(state_of "$before") in
        CANCELLED)
            stop_chain "job $before was cancelled"
            exit 0
            ;;
        RUNNING | SUSPENDED | STOPPED)
            say "job $before runs in $run_folder; this one leaves it alone"
            trap - EXIT
            exit 1
            ;;
    esac
fi
printf '%s %s\n' "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" > "$state/current.$$"
mv "$state/current.$$" "$state/current"
step=$(newest_step)
if [ "$(starts_without_progress "$step")" -ge "$most_starts" ]; then
    stop_chain "$most_starts starts in a row made no progress beyond checkpoint $step; see nemolaunch diagnose"
    exit 1
fi
printf '%s %s %s %s %s\n' "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" "$(date +%s)" "$step" "$SLURM_JOB_NODELIST" >> "$state/starts"
if [ "$chain" = 1 ]; then queue_next; fi
NEMOLAUNCH_END_TIME=$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s 2>/dev/null)
export NEMOLAUNCH_END_TIME
