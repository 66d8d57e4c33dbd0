#!/usr/bin/env bash
# Two builds of dualgrain at the same time, a thread each on a core of its own, changing cores from turn to turn: what disturbs the
# machine disturbs both, so each turn gives a ratio (new by old; above 1 is faster). Prefill and decode of one sequence, decode of
# sixteen, quantizing.
#
#     bench/in_pairs.sh OLD_DUALGRAIN NEW_DUALGRAIN RANDOM_MODEL [SECONDS] [FOLDER] > figures.csv
#
# Turns go on for SECONDS (300 unless said), on as many pairs of cores as the machine has. FOLDER keeps the models (1 GB). Needs an old
# build that reads folders of version 1.
set -euo pipefail
old=$(realpath "$1"); new=$(realpath "$2"); random_model=$(realpath "$3")
seconds=${4:-300}
folder=${5:-target/in_pairs}
pairs=$(($(nproc) / 2))
mkdir -p "$folder"; cd "$folder"

if [ ! -d q ]; then
    "$random_model" --shape llama-1b --w4a8 q >&2
    "$random_model" --shape llama-1b --layers 1 s >&2
    sed -i 's/"format_version": 2/"format_version": 1/' q/config.json
fi

# measure CORE PROGRAM WHAT OUT: one figure, more is faster.
measure() {
    local options=(-p 1 -n 32 --batch 1) field=decode_tokens_per_s
    case $3 in
        prefill) options=(-p 512 -n 1 --batch 1); field=prefill_tokens_per_s ;;
        sixteen) options=(-p 16 -n 32 --batch 16) ;;
        quantize)
            rm -rf "$4.q"
            local begin
            begin=$(date +%s%N)
            taskset -c "$1" "$2" quantize s --out "$4.q" --windows 4 --context 512 --threads 1 > /dev/null 2>&1
            awk "BEGIN { print 1e9 / ($(date +%s%N) - $begin) }" > "$4"
            return ;;
    esac
    taskset -c "$1" "$2" bench q --threads 1 "${options[@]}" -r 3 --json 2> /dev/null |
        grep -oE "\"$field\": ?[0-9.]+" | head -n 1 | grep -oE '[0-9.]+$' > "$4"
}

# turns PAIR: one line a turn: what, pair, turn, old, new.
turns() {
    local turn=0 first=$((2 * $1)) what
    while [ "$SECONDS" -lt "$seconds" ]; do
        for what in prefill decode sixteen quantize; do
            local cores=("$first" $((first + 1)))
            measure "${cores[$((turn % 2))]}" "$old" $what "old$1" &
            measure "${cores[$(((turn + 1) % 2))]}" "$new" $what "new$1"
            wait
            echo "$what,$1,$turn,$(cat "old$1"),$(cat "new$1")"
        done
        turn=$((turn + 1))
    done
}

rm -f turns*.csv
echo "what,pair,turn,old,new"
for pair in $(seq 0 $((pairs - 1))); do turns "$pair" > "turns$pair.csv" & done
wait
cat turns*.csv | tee figures.csv
for what in prefill decode sixteen quantize; do
    grep "^$what," figures.csv | awk -F, '{ print $5 / $4 }' | sort -g | awk -v what=$what '
        { ratio[NR] = $1; sum += $1; squares += $1 * $1 }
        END { mean = sum / NR; print what ": median " (ratio[int((NR + 1) / 2)] + ratio[int(NR / 2) + 1]) / 2 ", mean " mean \
              ", standard error " sqrt((squares / NR - mean * mean) / NR) ", turns " NR }' >&2
done
