#!/usr/bin/env bash
# Sends requests that Schemathesis makes of /openapi.json to a server: tests/contract/run.sh [URL | BINARY] [EXAMPLES]
# No answer may have a status of 500 or more or break the description, and what the description forbids must be refused. A binary is started
# with the bundled model on a free port. Needs Python 3; Schemathesis is installed from PyPI into target/. Without it nothing is tested: it
# says SKIPPED and ends with code 77.
set -euo pipefail
target=${1:-target/release/dualgrain}
if [ -f "$target" ]; then target=$(realpath "$target"); fi
cd "$(dirname "$0")/../.."

skip() { echo "SKIPPED: the description of the server was not tested, $1"; exit 77; }
home=target/schemathesis
if ! "$home/bin/python" -c 'import schemathesis' 2> /dev/null; then
    python3 -m venv "$home" 2> /dev/null || skip "Python cannot make a virtual environment"
    "$home/bin/pip" install --quiet --timeout 20 --retries 1 schemathesis==4.32.5 2> /dev/null \
        || skip "Schemathesis could not be fetched"
fi

url=$target
if [ -f "$target" ]; then
    "$target" serve models/llama-tiny --port 0 --json --device cpu --context 256 --log-level warn > "$home/started.json" &
    server=$!
    trap 'kill "$server" 2> /dev/null || true' EXIT
    for _ in $(seq 100); do
        url=$("$home/bin/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$home/started.json" 2> /dev/null) && break
        sleep 0.1
    done
fi

# Left out: that what the description allows is answered. Only the server knows whether a text fits its context.
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,negative_data_rejection,unsupported_method
# One worker: Python 3.11 counts the depth of syntax trees for all threads together, and ends in "recursion depth mismatch" with two.
code=0
timeout 85 "$home/bin/schemathesis" run "$url/openapi.json" --checks "$checks" --phases examples,coverage,fuzzing --seed 1 \
    --max-examples "${2:-12}" --workers 1 --request-timeout 20 --max-time 60 --suppress-health-check all --no-color || code=$?
# What it did in its time counts.
if [ "$code" = 124 ]; then echo "the time is over: nothing was wrong so far"; code=0; fi
exit "$code"
