#!/bin/sh
# Every figure of docs/speed.md that needs a GPU: sh scripts/gpu_speed.sh FOLDER [PYTHON]
#
# Each command takes some minutes at most and needs no network and no weights. One whose table lies in FOLDER already is
# left out, so a run that was cut off goes on where it stopped. STEPS=quick leaves out the teacher and the large scene.
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

measure memory benchmark memory --preset "$preset"
measure floor benchmark count --preset "$preset" --dtype bfloat16 --machine this --device "${DEVICE:-cuda}"
# One window of 16 frames, then the 56 views of five photos, every way against plain float32. The profile is the last way's.
measure ways-14 benchmark fast $shape --views 14 --ways bfloat16 channels-last compile all --profile "$out/profile-14.txt"
measure offload-14 benchmark fast $shape --views 14 --ways bfloat16 offload
if [ "${STEPS:-all}" != quick ]; then
    measure ways-56 benchmark fast $shape --views 56 --ways one-window bfloat16 compile all --profile "$out/profile-56.txt"
    # Student and teacher (50 steps with guidance) on the same fast path, then run plainly, stage by stage.
    measure teacher-14 benchmark fast $shape --views 14 --ways all teacher
    measure teacher-56 benchmark fast $shape --views 56 --repeats 1 --ways all teacher
    measure stages benchmark stages $shape --floor
fi
