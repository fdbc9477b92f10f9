say() { printf 'nemolaunch: %s\n' "$*"; }

# Print the state of a job, from the controller or, if it no longer knows the job, from accounting.
state_of() {
    local state
    state=$(timeout 60 scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p' | head -n 1)
    [ -n "$state" ] || state=$(timeout 60 sacct -nXP -j "$1" -o State 2>/dev/null | head -n 1)
    printf '%s\n' "${state%% *}"
}

# Return whether this job is ending because of scancel. Only accounting and slurmstepd's last message show that.
was_cancelled() {
    local own
    own=$(readlink "/proc/$$/fd/1")
    if tail -c +"$((said + 1))" "$own" 2>/dev/null | grep -q "JOB $SLURM_JOB_ID ON .* CANCELLED AT [^ ]* \*\*\*"; then return 0; fi
    [[ $(timeout 60 sacct -nXP -j "$SLURM_JOB_ID" -o State 2>/dev/null | head -n 1) == CANCELLED* ]]
}

# Print the step of the newest complete checkpoint; -1 if there is none.
newest_step() {
    local name step newest=-1
    for name in "$run_folder"/checkpoints/*-step=*; do
        [ -d "$name" ] && [ ! -e "$name-unfinished" ] || continue
        step=${name##*-step=}
        step=${step%%[!0-9]*}
        if [ "${step:--1}" -gt "$newest" ]; then newest=$step; fi
    done
    # Megatron-Bridge counts steps, and records its newest complete checkpoint
    name=$(cat "$run_folder/checkpoints/latest_checkpointed_iteration.txt" 2>/dev/null)
    case $name in
        '' | *[!0-9]*) ;;
        *) if [ -d "$run_folder/checkpoints/iter_$(printf %07d "$name")" ]; then newest=$((name - 1)); fi ;;
    esac
    printf '%s\n' "$newest"
}

# Print how many attempts in a row, up to the previous one, started from checkpoint $1.
attempts_without_progress() {
    local job restart time step rest count=0
    while read -r job restart time step rest; do
        if [ "$step" = "$1" ]; then count=$((count + 1)); else count=0; fi
    done < "$state/starts"
    printf '%s\n' "$count"
}

write() {
    printf '%s\n' "$2" > "$1.$$" && mv "$1.$$" "$1" && return
    rm -f "$1.$$"
    return 1
}

# Return whether the run is still where this job was submitted from.
is_there() {
    [ -e "$run_folder/plan.json" ]
}

# An attempt that is not recorded would not count towards --max-failures.
cannot_write() {
    trap - EXIT
    say "cannot write $run_folder: $(df -P "$run_folder" | awk 'NR == 2 {print $4 " KB left on " $6}')"
    exit 1
}

# End the chain, and record the reason.
stop_chain() {
    write "$state/stopped" "$*"
    say "$*"
    cancel_next
}

cancel_next() {
    if [ -s "$state/next" ]; then scancel "$(cat "$state/next")" 2>/dev/null; fi
    rm -f "$state/next"
}

# Queue the job that takes over if this one is killed.
queue_next() {
    local next name this=$SLURM_JOB_ID
    if [ -s "$state/next" ]; then
        next=$(cat "$state/next")
        if [ "$next" != "$this" ] && [ "$(state_of "$next")" = PENDING ]; then return; fi
    fi
    next=$(
        for name in $(compgen -e SLURM_) $(compgen -e SBATCH_); do
            case $name in SLURM_CONF | SLURM_CONF_SERVER | SLURM_JWT) ;; *) unset "$name" ;; esac
        done
        sbatch --requeue --parsable --dependency="afterany:$this,singleton" "$batch_script"
    ) || { say "cannot submit the next job from a compute node; continue with nemolaunch resume"; return; }
    write "$state/next" "${next%%;*}"
    say "job ${next%%;*} takes over if this one is killed"
}

# Print the seconds since the lock was last touched, by the clock of its file system.
lock_age() {
    touch "$state/clock"
    printf '%s\n' "$(($(stat -c %Y "$state/clock") - $(stat -c %Y "$lock" 2>/dev/null || echo 0)))"
}

# Return whether another process is writing to this folder: the holder of the lock touches it regularly.
taken_by_another() {
    local kind who rest
    while read -r kind who rest < "$lock"; do
        if [ "$who" = "$SLURM_JOB_ID" ] || [ "$(lock_age)" -ge "$lock_stale_s" ]; then return 1; fi
        if [ "$SECONDS" -ge "$((2 * lock_stale_s))" ]; then return 0; fi
        if [ "$kind" = slurm ]; then
            case $(state_of "$who") in
                RUNNING | SUSPENDED | STOPPED) return 0 ;;
                '' | COMPLETING) ;;
                *) return 1 ;;
            esac
        fi
        sleep 2
    done 2>/dev/null
    return 1
}

# Take the lock, which is free or stale: by a link, which only one can make. A stale one is first renamed away, and put
# back if somebody else has taken it meanwhile.
take_lock() {
    local held=$lock.$SLURM_JOB_ID.$$
    local seen
    seen=$(cat "$lock" 2>/dev/null)
    if [ -n "$seen" ] && mv "$lock" "$held.stale" 2>/dev/null; then
        if [ "$(cat "$held.stale")" != "$seen" ]; then ln "$held.stale" "$lock" 2>/dev/null; fi
        rm -f "$held.stale"
    fi
    write "$held" "slurm $this_attempt" || return
    ln "$held" "$lock" 2>/dev/null || [ -e "$lock" ] || mv "$held" "$lock" # a file system without links
    rm -f "$held"
}

# Touch the lock, and record when the job ends: administrators and preemption can change that. Ranks that receive a
# signal request an update.
watch_over() {
    local end turn=0
    trap '' TERM USR1 USR2
    trap exit HUP
    while [ "$((turn % 15))" != 0 ] || [ "$(cat "$state/current" 2>/dev/null)" = "$this_attempt" ]; do
        if [ "$((turn % 15))" = 0 ] && [ "$(cat "$lock" 2>/dev/null)" = "slurm $this_attempt" ]; then touch -c "$lock"; fi
        if [ "$((turn % 60))" = 0 ] || [ -e "$state/ask" ]; then
            end=$(timeout 60 squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null) && end=$(date -d "$end" +%s 2>/dev/null)
            if [ -n "$end" ]; then write "$state/end" "$end $kill_wait"; fi
            rm -f "$state/ask"
        fi
        turn=$((turn + 1))
        sleep 1 &
        wait $!
    done
}

on_exit() {
    local code=$?
    set +e # the script has set -e by now
    if [ -n "$site_step" ]; then say "the set-up of the job failed with code $code: $site_step"; fi
    kill -HUP $watcher 2>/dev/null
    if ! is_there; then
        say "$run_folder was moved or removed while the run was writing to it; continue it with nemolaunch resume"
        exit 1
    fi
    if [ "$(cat "$lock" 2>/dev/null)" = "slurm $this_attempt" ]; then rm -f "$lock"; fi
    if [ -e "$run_folder/finished.json" ]; then
        say "finished"
        cancel_next
        exit 0
    fi
    if [ ! -e "$state/stopped" ] && was_cancelled; then stop_chain "job $SLURM_JOB_ID was cancelled"; fi
    if [ -e "$state/stopped" ]; then
        cancel_next
        exit "$((code ? code : 1))"
    fi
    say "exited with code $code at checkpoint $(newest_step)"
    if [ "$array" = 1 ]; then
        if [ "$SLURM_ARRAY_TASK_ID" != "$SLURM_ARRAY_TASK_MAX" ]; then exit "$code"; fi
    elif [ "$chain" = 0 ]; then
        if [ "$code" = 0 ]; then stop_chain "job $SLURM_JOB_ID exited at checkpoint $(newest_step); continue with nemolaunch resume"; fi
    elif timeout 60 scontrol requeue "$SLURM_JOB_ID"; then
        sleep 600 # until Slurm ends this script
    fi
    exit "$((code ? code : unfinished))"
}

unfinished=75 # the exit code of a job that exited cleanly before the last step
state=$run_folder/slurm
lock=$run_folder/lock
watcher=
site_step= # the site's command that is running
this_attempt="$SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0}"
said=$(stat -c %s "$(readlink "/proc/$$/fd/1")" 2>/dev/null || echo 0)
if ! is_there; then
    say "$run_folder was moved or removed; continue the run with nemolaunch resume where it is now"
    exit 1
fi
mkdir -p "$state"
touch "$state/starts"
if [ -e "$run_folder/finished.json" ]; then exit 0; fi
if [ -e "$state/stopped" ]; then
    say "not started: $(cat "$state/stopped")"
    exit 1
fi
before=
if [ -e "$state/current" ]; then read -r before _ < "$state/current"; fi
if [ -n "$before" ] && [ "$before" != "$SLURM_JOB_ID" ]; then
    case $(state_of "$before") in
        CANCELLED)
            stop_chain "job $before was cancelled"
            exit 1
            ;;
        RUNNING | SUSPENDED | STOPPED)
            say "job $before is running in $run_folder; this job exits"
            exit 1
            ;;
    esac
fi
if taken_by_another; then
    say "another job is writing to $run_folder ($(cat "$lock")); this job exits"
    exit 1
fi
take_lock || cannot_write
write "$state/current" "$this_attempt" || cannot_write
trap on_exit EXIT
trap : TERM USR1 USR2
step=$(newest_step)
if [ "$(attempts_without_progress "$step")" -ge "$max_failures" ]; then
    stop_chain "$max_failures attempts in a row made no progress beyond checkpoint $step; see nemolaunch diagnose"
    exit 1
fi
say "start $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
printf '%s %s %s %s\n' "$this_attempt" "$(date +%s)" "$step" "$SLURM_JOB_NODELIST" >> "$state/starts" || cannot_write
if [ "$(cat "$lock")" != "slurm $this_attempt" ]; then
    trap - EXIT
    say "another job locked $run_folder ($(cat "$lock")) at the same moment; this job exits"
    exit 1
fi
if [ "$chain" = 1 ]; then queue_next; fi
kill_wait=$(timeout 60 scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
rm -f "$state/end" "$state/ask"
watch_over &
watcher=$!
