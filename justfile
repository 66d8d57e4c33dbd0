# All of CI.
check:
    .ci/run

# The tests alone.
test:
    cargo test --release

# docs/ as a book, in target/book/html.
book:
    tests/book/run.sh

# The pages and pictures of the book that are made from the program and from records, written anew.
book-pages:
    DUALGRAIN_WRITE_BOOK=1 cargo test --release --workspace --test book

# A worker of NVIDIA Dynamo, its tests, and a fleet tried on this machine. Needs protobuf-compiler cmake libclang-dev pkg-config libssl-dev, half an hour for
# Dynamo's crates, etcd, a quantized model, and a Python that has Dynamo's frontend (ai-dynamo 1.6.1).
fleet python model:
    cargo build --release
    cd adapters/dynamo && cargo fmt --check && cargo clippy --release --all-targets -- -D warnings && cargo test --release && cargo build --release
    adapters/dynamo/trial/trial.py --frontend "{{python}} -m dynamo.frontend" --model {{model}}

# What a release gives out, in target/packages, and a trial of it.
release:
    packaging/release.sh
    packaging/check.sh

# Times every kernel against its naive twin's result.
bench-ops:
    cargo run --release -p dualgrain-cpu --example bench_ops

# Instructions of every hot operation under valgrind, beside the recorded ones.
count-ops:
    cargo run --release -p dualgrain-cpu --example count_ops -- --check bench/record/2026-11-23_callgrind_avx2.csv

# The bars that take minutes: perplexities of the trained models in ../shared over the whole WikiText-2 test set.
bars:
    cargo test --release -p dualgrain-engine --test evaluate -- --ignored --nocapture

# The server under load at full size, which takes minutes: 500 requests among others, 1,000 broken ones among 1,000 good ones, twice.
load:
    cargo test --release -p dualgrain-server --test load -- --ignored --nocapture

# On a machine with a Hopper card: every kernel compiled, hostile cases compared with the specification, products timed.
gpu csv="h200_gemm.csv":
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-cuda --test cuda_compile -- --all
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-cuda --test cuda_gemm -- --cases 12000
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-cuda --test cuda_float_scales
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-cuda --test cuda_quantize --test cuda_attention --test cuda_linears \
        --test cuda_mixture --test cuda_sampling --test cuda_statistics -- --times
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-engine --test cuda
    cargo run --release -- bench gemm --against cublas-bf16,cublas-int8 --csv {{csv}}

# There too: some of the same cases under NVIDIA's compute-sanitizer, which takes minutes for each tool.
sanitize:
    just sanitize-with memcheck 27
    just sanitize-with racecheck 7

sanitize-with tool cases:
    DUALGRAIN_MAY_LACK=nothing cargo test --release -p dualgrain-cuda --test cuda_gemm --test cuda_float_scales --test cuda_quantize \
        --test cuda_attention --test cuda_linears --test cuda_mixture --test cuda_sampling --test cuda_statistics \
        --config 'target."cfg(all())".runner = "compute-sanitizer --tool {{tool}} --error-exitcode 1"' -- --cases {{cases}}
