#!/usr/bin/env bash
# Two builds of dualgrain in turns on one machine, so that what disturbs one disturbs the other: prefill and decode of one
# sequence, decode of sixteen, quantizing. Medians of five turns and their ratios (new by old; above 1 is faster).
#
#     bench/side_by_side.sh OLD_DUALGRAIN NEW_DUALGRAIN RANDOM_MODEL [THREADS] [FOLDER] > figures.csv
#
# The first three are programs: two builds, and the example random_model. FOLDER keeps the models (a few GB).
set -euo pipefail
old=$(realpath "$1"); new=$(realpath "$2"); random_model=$(realpath "$3")
threads=${4:-2}
folder=${5:-target/side_by_side}
turns=5
mkdir -p "$folder"; cd "$folder"

say() { echo "$*" >&2; }

# The old build quantizes: every build reads its folder.
if [ ! -d q ]; then
    say "making a model of 1.1 billion parameters"
    "$random_model" --shape llama-1b m >&2
    "$old" quantize m --out q --search rtn --windows 1 --threads "$threads" > /dev/null
    "$random_model" --shape llama-1b --layers 2 s >&2
fi

# figures TURN BUILD PROGRAM: one line a figure: name, turn, build, value (more is faster).
figures() {
    local turn=$1 build=$2 program=$3 name
    for name in prefill decode sixteen; do
        local options=(-p 1 --batch 1) field=decode_tokens_per_s
        case $name in
            prefill) options=(-p 512 --batch 1); field=prefill_tokens_per_s ;;
            sixteen) options=(-p 128 --batch 16) ;;
        esac
        local value
        value=$("$program" bench q -t "$threads" -n 64 "${options[@]}" -r 3 --json | grep -oE "\"$field\": ?[0-9.]+" | head -n 1 | grep -oE '[0-9.]+$')
        echo "$name,$turn,$build,$value"
    done
    rm -rf o
    local begin end
    begin=$(date +%s%N)
    "$program" quantize s --out o --windows 8 --context 512 --threads "$threads" > /dev/null 2>&1
    end=$(date +%s%N)
    echo "quantize,$turn,$build,$(awk "BEGIN { print 1e9 / ($end - $begin) }")"
}

echo "what,turn,build,per_s"
for turn in $(seq "$turns"); do
    say "turn $turn of $turns"
    if [ $((turn % 2)) = 1 ]; then
        figures "$turn" old "$old"; figures "$turn" new "$new"
    else
        figures "$turn" new "$new"; figures "$turn" old "$old"
    fi
done | tee figures.csv
rm -rf o

median() { grep "^$1,[0-9]*,$2," figures.csv | cut -d, -f4 | sort -g | sed -n "$(((turns + 1) / 2))p"; }
for name in prefill decode sixteen quantize; do
    say "$name: $(awk "BEGIN { printf \"%.3f\", $(median $name new) / $(median $name old) }")"
done
