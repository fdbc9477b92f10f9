#!/bin/sh
# install.sh LOG COMMAND...: run pip with its output in LOG, and say meanwhile what it does: on a terminal all the time,
# elsewhere every ten seconds. On failure, print the end of LOG. The exit code is the command's.
log=$1
shift
"$@" > "$log" 2>&1 &
pid=$!
trap 'kill "$pid" 2> /dev/null; exit 130' INT TERM
seconds=0
while kill -0 "$pid" 2> /dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    now=$(sed -n 's/^Collecting \([A-Za-z0-9._-]*\).*/collecting \1/p; s/^Building wheel.*/building wheels/p
        s/^Installing collected packages.*/copying the packages/p' "$log" | tail -n 1)
    if [ -t 1 ]; then
        printf '\r\033[K  %s, %s s' "${now:-starting pip}" "$seconds"
    elif [ $((seconds % 10)) = 0 ]; then
        printf '  %s, %s s\n' "${now:-starting pip}" "$seconds"
    fi
done
if [ -t 1 ]; then printf '\r\033[K'; fi
wait "$pid"
code=$?
if [ "$code" != 0 ]; then tail -n 20 "$log"; fi
exit "$code"
