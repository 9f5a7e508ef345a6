#!/usr/bin/env bash
# run.sh FOLDER PRECISION [ENGINE] [more arguments of `measure networks`]
#
# PYTHON (default python3): has dpcompress and torch. GPU_PYTHON (default PYTHON): has
# TensorRT, pycuda and numpy, from Python 3.8 on. SIZE, BATCH: of the images.
# Stopped at any moment, the same command goes on; STEP=ops|networks|report does one step.
set -euo pipefail
folder=$1 precision=$2 engine=${3:-tensorrt:tactics=internal}
shift $(($# < 3 ? $# : 3))
python=${PYTHON:-python3} gpu=${GPU_PYTHON:-${PYTHON:-python3}}
export DPCOMPRESS_TIMING_CACHE=${DPCOMPRESS_TIMING_CACHE:-$folder/timing}
mkdir -p "$folder"
measure() { "$python" -m experiments tensorrt.measure "$@"; }
run() {
  "$gpu" "$folder/runner.pyz" "$folder/$1.zip" -o "$folder/$1.jsonl" \
    --engine "$engine" --precision "$precision"
}
wants() { [ "${STEP:-all}" = all ] || [ "${STEP}" = "$1" ]; }

[ -e "$folder/ops.zip" ] || measure ops "$folder" --precision "$precision" \
  --size "${SIZE:-224}" --batch "${BATCH:-128}"
if wants ops; then run ops; fi
if wants networks; then
  [ -e "$folder/networks.zip" ] || measure networks "$folder" "$@"
  run networks
fi
if wants report; then measure report "$folder"; fi
