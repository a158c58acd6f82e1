#!/usr/bin/env bash
# The engine's own server tests (tools/server/tests) on the stock and on the patched build: what passes on stock must
# pass on patched, without a draft link and with one at which the drafter of this project works.
#
#   scripts/engine-tests.sh [pytest arguments, such as unit/test_completion.py]
#
# Those tests fetch their models from a hub. Here one tiny model with chance weights stands in for all of them, so that everything runs
# offline, in some ten minutes; tests that look at what a certain model says, or need a reranker, images or adapters, fail on both builds
# and count for neither. What passes on stock only is run a second time on patched, since many of these tests depend on time. Reports and
# logs stay in $ADED_HOME/engine-tests. ADED_STOCK_SERVER and ADED_PATCHED_SERVER name other builds, ADED_ENGINE_SOURCE their source.
# The last line is "N passed, N failed".
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=${ADED_HOME:-$HOME/.aded}/engine-tests
limit=1800 # seconds for each of the runs
timeout=60  # and for each of the tests
port=18080

cd "$root"
stock=${ADED_STOCK_SERVER:-$(node bin/aded.js engine build --stock)}
patched=${ADED_PATCHED_SERVER:-$(node bin/aded.js engine build)}
source=${ADED_ENGINE_SOURCE:-$(cd -- "$(dirname -- "$patched")/../../src" && pwd)}

mkdir -p "$work"
rm -f -- "$work"/*.xml "$work"/*.log
scratch=$(mktemp -d "${TMPDIR:-/tmp}/aded-engine-tests-XXXXXX")
drafter= tests=
cleanup() {
    [ -z "$drafter" ] || kill "$drafter" 2> /dev/null || true
    [ -z "$tests" ] || kill -- "-$tests" 2> /dev/null || true # with the servers that they started
    rm -rf -- "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

. scripts/engine-tests-common.sh
prepare_tests

run() { # name, server, draft socket or nothing, pytest arguments
    local name=$1 server=$2 socket=$3 start=$SECONDS
    shift 3
    echo "--- $name"
    TEST_SERVER=$server TEST_DRAFT_SOCKET=$socket pytest_run "$name" "$@"
    if [ "$name" != stock ]; then
        "$python" scripts/engine-tests-compare.py --failed "$work" stock "$name" > "$scratch/failed"
        mapfile -t failed < "$scratch/failed"
        [ ${#failed[@]} -eq 0 ] || TEST_SERVER=$server TEST_DRAFT_SOCKET=$socket pytest_run "$name-again" "${failed[@]}"
    fi
    echo "$((SECONDS - start)) s"
}

run stock "$stock" "" "$@"
run patched "$patched" "" "$@"

node --import tsx scripts/engine-tests-drafter.ts "$scratch/draft.sock" > "$work/drafter.log" 2>&1 &
drafter=$!
run drafted "$patched" "$scratch/draft.sock" "$@"
kill "$drafter" && wait "$drafter" || true
drafter=
tail -n 1 "$work/drafter.log"

"$python" scripts/engine-tests-compare.py "$work" stock patched drafted
