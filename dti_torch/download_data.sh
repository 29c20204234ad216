#!/usr/bin/env bash
# Downloads affNIST-test, FRGC and the Instagram collections; without it, a run downloads the dataset that it needs.
# DATA_ROOT=/big/disk ./download_data.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"
[[ ${DATA_ROOT:-/} == /* ]] || export DATA_ROOT=$PWD/$DATA_ROOT
cd "$root"

failed=()
for name in affnist_test frgc instagram; do
    step python3 -m common.download "$name" || failed+=("$name")
    if [ -n "$signaled" ]; then exit "$signaled"; fi
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "error: not fetched: ${failed[*]}; data/README.md lists where to put the files by hand" >&2
    exit 2
fi
