#!/usr/bin/env bash
# Downloads affNIST-test, FRGC and the Instagram collections #santaphoto and #weddingkiss; a run downloads what it needs itself.
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
    echo "error: not downloaded: ${failed[*]}; to add the files by hand, see data/README.md" >&2
    exit 2
fi
