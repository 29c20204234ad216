#!/usr/bin/env bash
# Builds a collection from a hashtag: downloads its posts with instaloader, if installed, and resizes the photographs.
# hashtag=trevifountain n_posts=10000 login=YOUR_NAME ./process_insta_santa.sh
# Instagram requires an account for hashtags and increasingly blocks programs. Photographs that you put into
# DATA_ROOT/instagram/HASHTAG/posts are used as well. Then: --config instagram.yml --dataset.split HASHTAG
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../common/pipeline.sh"
[[ ${DATA_ROOT:-/} == /* ]] || export DATA_ROOT=$PWD/$DATA_ROOT
cd "$root"

hashtag=${hashtag:-santaphoto}
folder=${DATA_ROOT:-$root/data}/instagram/$hashtag
if [ -n "$(ls -A "$folder/train" 2>/dev/null)" ]; then
    echo "error: $folder/train already exists: move it away to build it again" >&2
    exit 2
fi
mkdir -p "$folder/posts"
if ! command -v instaloader >/dev/null; then
    echo "instaloader is not installed (pip install instaloader): using the files in $folder/posts" >&2
elif ! instaloader --dirname-pattern "$folder/posts" --count "${n_posts:-10000}" ${login:+--login "$login"} \
    --no-videos --no-video-thumbnails --no-captions --no-metadata-json --no-profile-pic "#$hashtag" >&2; then
    echo "instaloader did not get all posts of #$hashtag: using the files in $folder/posts" >&2
fi
step python3 -m dti_torch.resize "$folder/posts" "$folder/train" --size 128
