#!/usr/bin/env bash
# train | pred | evaluate | report; prints the run folder. Arguments go to train.py.
# cuda=0 config=NAME.yml tag=try1 ./pipeline.sh --training.seed 3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"

step python3 "$here/train.py" ${config:+--config "$config"} ${tag:+--tag "$tag"} "$@" >"$answer"
run=$(tail -n 1 "$answer")
step python3 "$here/pred.py" "$run" >&2
step python3 "$here/evaluate.py" "$run" >&2
cd "$root"
step python3 -m common.report "$run" >&2
echo "$run"
