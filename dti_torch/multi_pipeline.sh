#!/usr/bin/env bash
# Runs pipeline.sh with n_runs seeds, starting at first_seed, then prints a table: mean, standard deviation, lowest loss.
# cuda=0 config=NAME.yml tag=try1 n_runs=10 first_seed=0 ./multi_pipeline.sh --training.lr 3e-4
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"

runs=()
first=${first_seed:-0}
name=${tag:+${tag}_}
for ((seed = first; seed < first + ${n_runs:-10}; seed++)); do
    tag=${name}seed$seed step "$here/pipeline.sh" "$@" --training.seed "$seed" >"$run_file"
    runs+=("$(cat "$run_file")")
done
cd "$root"
python3 -m common.summary "${runs[@]}"
