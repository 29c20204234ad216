#!/usr/bin/env bash
# Fetches affNIST-test, FRGC and the collections #santaphoto and #weddingkiss; a run by itself fetches only what it needs.
# DATA_ROOT=/big/disk ./download_data.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"
[[ ${DATA_ROOT:-/} == /* ]] || export DATA_ROOT=$PWD/$DATA_ROOT
cd "$root"

failed=()
for name in affnist_test frgc instagram; do
    step python3 -m common.download "$name" || failed+=("$name")
    if [ -n "$stopped" ]; then exit "$stopped"; fi
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "error: not fetched: ${failed[*]}; data/README.md says where to put the files by hand" >&2
    exit 2
fi
