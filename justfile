# All of CI.
check:
    .ci/run

# The tests alone.
test:
    cargo test --release

# Times every kernel against its naive twin's result.
bench-ops:
    cargo run --release -p dualgrain-kernels --example bench_ops

# Instructions of every hot operation under valgrind, beside the recorded ones.
count-ops:
    cargo run --release -p dualgrain-kernels --example count_ops -- --check bench/record/2026-11-22_callgrind_avx2.csv

# The bars that take minutes: perplexities of the trained models in ../shared over the whole WikiText-2 test set.
bars:
    cargo test --release -p dualgrain-engine --test evaluate -- --ignored --nocapture
