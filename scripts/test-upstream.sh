#!/usr/bin/env bash
# The engine's own server tests (tools/server/tests) through aded-server: what passes on the stock build must pass on it, every time.
#
#   npm run test:upstream [-- pytest arguments, such as unit/test_completion.py]
#   npm run test:upstream -- --listed     a short one (also: npm test -- --only upstream)
#
# --listed: only the tests that scripts/test-upstream.txt names, which pass on the stock build; that one is not run (nor built), and
# aded-server once.
#
# As scripts/engine-tests.sh, with which it shares model and comparison, but the program under test is bin/aded-server as users
# start it: it picks the socket and starts the drafter beside each of the servers, which come and go. Run twice (ADED_UPSTREAM_RUNS).
# ADED_UPSTREAM_SECONDS bounds each run. Reports and logs stay in $ADED_HOME/upstream-tests. ADED_STOCK_SERVER and ADED_ENGINE name
# other builds, ADED_ENGINE_SOURCE their source. The last line is "N passed, N failed".
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export ADED_HOME=${ADED_HOME:-$HOME/.aded}
work=$ADED_HOME/upstream-tests
limit=${ADED_UPSTREAM_SECONDS:-1800}
runs=${ADED_UPSTREAM_RUNS:-2}
reference=stock
timeout=120 # seconds for each test
port=${ADED_UPSTREAM_PORT:-18180}

cd "$root"
if [ "${1:-}" = --listed ]; then
    list=$root/scripts/test-upstream.txt
    reference=@$list
    runs=1
    mapfile -t listed < <(grep -v '^#' "$list")
    set -- "${listed[@]}"
else
    stock=${ADED_STOCK_SERVER:-$(node bin/aded.js engine build --stock)}
fi
export ADED_ENGINE=${ADED_ENGINE:-$(node bin/aded.js engine build)}
source=${ADED_ENGINE_SOURCE:-$(cd -- "$(dirname -- "$ADED_ENGINE")/../../src" && pwd)}

mkdir -p "$work"
rm -f -- "$work"/*.xml "$work"/*.log "$ADED_HOME/logs/aded-server.log"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/aded-upstream-XXXXXX")
tests=
cleanup() {
    [ -z "$tests" ] || kill -- "-$tests" 2> /dev/null || true # with the servers that they started
    rm -rf -- "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

. scripts/engine-tests-common.sh
prepare_tests

timed_run() { # name, server, pytest arguments
    local name=$1 start=$SECONDS
    export TEST_SERVER=$2
    shift 2
    echo "--- $name"
    pytest_run "$name" "$@"
    echo "$((SECONDS - start)) s"
}

# A step of this model takes less time than a draft: without more patience most would come too late; and many of these servers live no longer
# than a drafter needs to start: they wait for it. The stock build does not know these variables.
export LLAMA_ARG_DRAFT_TIMEOUT_US=20000 LLAMA_ARG_DRAFT_WAIT=10000 ADED_DRAFT_FIXED_NODES=6 ADED_DRAFT_MATRIX_MEMORY="16 MiB"
[ "$reference" != stock ] || timed_run stock "$stock" "$@"
names=()
for ((i = 1; i <= runs; i++)); do
    name=aded-server-$i
    names+=("$name")
    timed_run "$name" "$root/bin/aded-server" "$@"
    "$python" scripts/engine-tests-compare.py --failed "$work" "$reference" "$name" > "$scratch/failed"
    mapfile -t failed < "$scratch/failed"
    # many of these tests depend on time
    [ ${#failed[@]} -eq 0 ] || timed_run "$name-again" "$root/bin/aded-server" "${failed[@]}"
done

# what the drafters say of themselves when their engine is gone
{ grep -o '"drafted_nodes":[0-9]*' "$ADED_HOME/logs/aded-server.log" 2> /dev/null || true; } |
    awk -F: '{ nodes += $2; if ($2 > 0) servers++ } END { printf "%d servers had a drafter beside them, %d of them drafted, %d nodes in all\n", NR, servers, nodes }'

"$python" scripts/engine-tests-compare.py "$work" "$reference" "${names[@]}"
