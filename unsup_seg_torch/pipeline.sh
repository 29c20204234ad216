#!/usr/bin/env bash
# Trains, predicts, evaluates, writes the report and prints the run folder. Arguments are passed to train.py.
# cuda=0 config=NAME.yml tag=try1 ./pipeline.sh --training.seed 3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"

step python3 "$here/train.py" ${config:+--config "$config"} ${tag:+--tag "$tag"} "$@" >"$run_file"
run=$(tail -n 1 "$run_file")
step python3 "$here/pred.py" "$run" >&2
step python3 "$here/evaluate.py" "$run" >&2
cd "$root"
step python3 -m common.report "$run" >&2
echo "$run"
