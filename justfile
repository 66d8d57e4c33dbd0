# All of CI.
check:
    .ci/run

# The tests alone.
test:
    cargo test --release

# Times every kernel against its naive twin's result.
bench-ops:
    cargo run --release -p dualgrain-kernels --example bench_ops
