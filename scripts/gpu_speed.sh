#!/bin/sh
# What docs/speed.md says is to be measured on a GPU: sh scripts/gpu_speed.sh FOLDER [PYTHON]
#
# Each command takes some minutes at most and needs no network and no weights. One whose table lies in FOLDER already is
# left out, so a run that was cut off goes on where it stopped. STEPS=quick leaves out the teacher and several windows.
set -u

out=${1:?folder for the figures}
python=${2:-python}
preset=${PRESET:-viewcrafter-512-16}
mkdir -p "$out"

# measure NAME COMMAND...: the table in NAME.md, the figures in NAME.json, what went wrong in NAME.log
measure() {
    name=$1
    shift
    if [ -s "$out/$name.md" ]; then
        echo "== $name: there already"
        return
    fi
    echo "== $name: fvgen $*"
    if timeout 590 "$python" -m fvgen "$@" -o "$out/$name.json" >"$out/$name.part" 2>"$out/$name.log"; then
        mv "$out/$name.part" "$out/$name.md"
        cat "$out/$name.md"
    else
        echo "   failed, see $out/$name.log:"
        tail -n 3 "$out/$name.log"
    fi
}

shape="--preset $preset --random-weights --device ${DEVICE:-cuda}"

measure memory-bfloat16 benchmark count --preset "$preset" --dtype bfloat16
measure memory-float32 benchmark count --preset "$preset" --dtype float32
# The student, one window of 16 frames and then four, in every way against float32.
ways="float32 plain channels-last compile compile+channels-last"
measure ways-1 benchmark stages $shape --models student --ways $ways
measure offload-1 benchmark stages $shape --models student --ways plain offload
if [ "${STEPS:-all}" != quick ]; then
    measure ways-4 benchmark stages $shape --models student --clips 4 --ways $ways window-batch=1
    # Student and teacher (50 steps with guidance), run plainly and in the fastest way.
    measure stages benchmark stages $shape --models student teacher
    measure teacher-1 benchmark stages $shape --models student teacher --ways compile+channels-last
    measure teacher-4 benchmark stages $shape --models student teacher --clips 4 --repeats 1 --ways compile+channels-last
fi
