# What every pipeline.sh and multi_pipeline.sh begins with; `here` is the paper's folder.
root=$(cd "$here/.." && pwd)
if [ -z "${VIRTUAL_ENV-}${CONDA_PREFIX-}" ] && [ -d "$root/.venv" ]; then
    export PATH="$root/.venv/bin:$PATH"
fi
if [ -n "${cuda-}" ]; then export CUDA_VISIBLE_DEVICES=$cuda; fi

# Bash heeds no signal while a foreground command runs. So each step is a background job in a group of its own, to which
# SIGTERM, Ctrl-C and a closed terminal are handed on once, as the SIGTERM that the entry scripts end cleanly on.
job= stopped= told=
tell() { # once: the signal may come between the start of a job and knowing its number
    if [ -n "$stopped" ] && [ -n "$job" ] && [ -z "$told" ]; then
        told=1
        kill -TERM "$job" 2>/dev/null || true
    fi
}
trap 'stopped=143; tell' INT TERM HUP

step() { # its exit code is the command's, but never 0 after a signal
    job=
    set -m # its own group; not while waiting: `wait` returns at once, again and again, while a step of such a shell is stopped
    "$@" &
    job=$!
    set +m
    tell
    local code=0
    wait "$job" || code=$?
    while kill -0 "$job" 2>/dev/null; do # wait returns early on a signal
        code=0
        wait "$job" || code=$?
    done
    if [ "$code" -eq 0 ]; then code=${stopped:-0}; fi
    return "$code"
}

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
