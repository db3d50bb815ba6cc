# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For the scripts that a person watches: long work with its output in a file, and a line of
# progress every few seconds. Sourced.

STEP_INTERVAL_S=5
STEP_TAIL_LINES=40

step() {
        [ -n "${STEP_QUIET:-}" ] || printf '==> %s\n' "$*"
}

step_tail() { # LOG
        printf -- '--- the end of %s ---\n' "$1"
        tail -n "$STEP_TAIL_LINES" "$1" 2>/dev/null || true
        printf -- '---\n'
}

# What runs in the background of a script does not get ^C. For the script's traps: ends these
# processes of its own, by force when they do not.
step_end() { # PID...
        local pid deadline=$((SECONDS + 5))
        kill "$@" 2>/dev/null || true
        for pid in "$@"; do
                while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
                        sleep 0.05
                done
                kill -KILL "$pid" 2>/dev/null || true
                wait "$pid" 2>/dev/null || true
        done
}

step_pid=
step_stop() {
        [ -z "$step_pid" ] || step_end "$step_pid"
}

# The command's exit status is the function's.
step_run() { # LOG TITLE COMMAND...
        local log=$1 title=$2 start=$SECONDS next pid status=0 last
        shift 2
        step "$title"
        "$@" >"$log" 2>&1 </dev/null &
        pid=$!
        step_pid=$pid
        next=$((SECONDS + STEP_INTERVAL_S))
        while kill -0 "$pid" 2>/dev/null; do
                sleep 0.2
                if [ -z "${STEP_QUIET:-}" ] && [ "$SECONDS" -ge "$next" ]; then
                        next=$((SECONDS + STEP_INTERVAL_S))
                        last=$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-70)
                        printf '    %3d s  %s\n' $((SECONDS - start)) "$last"
                fi
        done
        wait "$pid" || status=$?
        step_pid=
        if [ "$status" -ne 0 ]; then
                printf '%s: failed (%d)\n' "$title" "$status" >&2
                step_tail "$log" >&2
        fi
        return "$status"
}
