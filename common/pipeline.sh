# Sourced by the scripts of the papers, which set `here` to their own folder.
root=$(cd "$here/.." && pwd)
if [ -z "${VIRTUAL_ENV-}${CONDA_PREFIX-}" ] && [ -d "$root/.venv" ]; then
    export PATH="$root/.venv/bin:$PATH"
fi
if [ -n "${cuda-}" ]; then export CUDA_VISIBLE_DEVICES=$cuda; fi

# Bash handles no signal while a foreground command runs. Each step is therefore a background job in its own process
# group, and SIGTERM, Ctrl-C and a closed terminal are forwarded to it once, as SIGTERM: entry scripts then save and stop.
job= signaled= forwarded=
forward() { # also called after a job has started: the signal may arrive before its process id is known
    if [ -n "$signaled" ] && [ -n "$job" ] && [ -z "$forwarded" ]; then
        forwarded=1
        kill -TERM "$job" 2>/dev/null || true
    fi
}
trap 'signaled=143; forward' INT TERM HUP

step() { # returns the exit code of the command, but never 0 after a signal
    job=
    set -m # a new process group; off again before `wait`, which would return at once while the job is suspended
    "$@" &
    job=$!
    set +m
    forward
    local code=0
    wait "$job" || code=$?
    while kill -0 "$job" 2>/dev/null; do # a signal interrupts wait
        code=0
        wait "$job" || code=$?
    done
    if [ "$code" -eq 0 ]; then code=${signaled:-0}; fi
    return "$code"
}

run_file=$(mktemp) # stdout of train.py: the run folder
trap 'rm -f "$run_file"' EXIT
