#!/usr/bin/env bash
# Instructions of two builds of dualgrain for the same work, by callgrind: they do not depend on what else a machine does.
# A step of one and of sixteen sequences, a token of a prompt, a small quantization; AVX2 (valgrind knows no more), one thread.
#
#     bench/count_steps.sh OLD_DUALGRAIN NEW_DUALGRAIN FLOAT_MODEL > counts.csv
#
# Both programs keep their symbols (`cargo build --profile profiling`). FLOAT_MODEL is small, e.g. two layers from the example random_model.
set -euo pipefail
[ $# = 3 ] || { echo "usage: bench/count_steps.sh OLD_DUALGRAIN NEW_DUALGRAIN FLOAT_MODEL > counts.csv" >&2; exit 2; }
command -v valgrind > /dev/null || { echo "valgrind is needed to count instructions" >&2; exit 1; }
old=$(realpath "$1"); new=$(realpath "$2"); model=$(realpath "$3")
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
export DUALGRAIN_BACKEND=avx2
"$old" quantize "$model" --out q --search rtn --windows 1 > /dev/null 2>&1

# counted FUNCTION PROGRAM ARGUMENTS...: instructions inside FUNCTION, all where it is empty.
counted() {
    local toggle=${1:+--toggle-collect=$1}; shift
    valgrind --tool=callgrind --callgrind-out-file=out $toggle "$@" 2>&1 > /dev/null | awk '/Collected/ { print $4 }'
}

# timed PROGRAM OPTIONS...: instructions of a warm-up and one round of `bench`.
timed() { local program=$1; shift; counted '*time_case*' "$program" bench q -t 1 -r 1 --json "$@"; }

# per NUMBER FEWER MORE: what each of NUMBER costs that MORE has and FEWER lacks.
per() { awk "BEGIN { printf \"%.0f\", ($3 - $2) / $1 }"; }

echo "what,old,new,new_by_old"
row() { echo "$1,$2,$3,$(awk "BEGIN { printf \"%.4f\", $3 / $2 }")"; }
decode() { per 16 "$(timed "$1" -p 16 --batch "$2" -n 2)" "$(timed "$1" -p 16 --batch "$2" -n 10)"; }
prefill() { per 512 "$(timed "$1" -p 64 --batch 1 -n 1)" "$(timed "$1" -p 320 --batch 1 -n 1)"; }
quantize() { rm -rf o; counted '' "$1" quantize "$model" --out o --windows 1 --context 128 --threads 1; }
row "step of 1 sequence" "$(decode "$old" 1)" "$(decode "$new" 1)"
row "step of 16 sequences" "$(decode "$old" 16)" "$(decode "$new" 16)"
row "token of a prompt" "$(prefill "$old")" "$(prefill "$new")"
row "quantization" "$(quantize "$old")" "$(quantize "$new")"
