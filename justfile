# All of CI.
check:
    .ci/run

# The tests alone.
test:
    cargo test --release

# Times every kernel against its naive twin's result.
bench-ops:
    cargo run --release -p dualgrain-kernels --example bench_ops

# The bars that take minutes: perplexities of the trained models in ../shared over the whole WikiText-2 test set.
bars:
    cargo test --release -p dualgrain-engine --test evaluate -- --ignored --nocapture
