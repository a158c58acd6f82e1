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

python=$work/venv/bin/python
if [ ! -e "$work/venv/ready" ]; then
    echo "setting up Python's test packages in $work/venv"
    python3 -m venv "$work/venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$source/tools/server/tests/requirements.txt" pyyaml pytest-timeout
    touch "$work/venv/ready"
fi
"$python" scripts/engine-tests-model.py "$source" "$scratch/tiny.gguf"

# the tests write into their folder and read files of the engine's tree around it: a copy in a tree of links
tree=$scratch/engine
mkdir -p "$tree/tools/server"
ln -s -- "$source"/* "$tree/" 2> /dev/null || true
ln -s -- "$source"/tools/* "$tree/tools/" 2> /dev/null || true
ln -s -- "$source"/tools/server/* "$tree/tools/server/"
rm -- "$tree/tools/server/tests"
cp -r -- "$source/tools/server/tests" "$tree/tools/server/tests"
mkdir -p "$tree/tools/server/tests/tmp"

# stands in for llama-server: whatever model is asked for, the tiny one is taken
cat > "$scratch/llama-server" <<'WRAPPER'
#!/usr/bin/env bash
args=(--offline) model=
while [ $# -gt 0 ]; do
    case $1 in
        --hf-repo | --hf-file | --model-url) model=$TEST_MODEL; shift 2 ;;
        --offline) shift ;;
        *) args+=("$1"); shift ;;
    esac
done
[ -z "$model" ] || args+=(--model "$model")
# a step of this model takes less time than a draft: without more patience most would come too late
[ -z "$model" ] || [ -z "$TEST_DRAFT_SOCKET" ] || args+=(--draft-socket "$TEST_DRAFT_SOCKET" --draft-timeout-us 20000)
exec "$TEST_SERVER" "${args[@]}"
WRAPPER
chmod +x "$scratch/llama-server"

run() { # name, server, draft socket or nothing, pytest arguments
    local name=$1 server=$2 socket=$3 start=$SECONDS
    shift 3
    echo "--- $name"
    pytest_run "$name" "$server" "$socket" "$@"
    if [ "$name" != stock ]; then
        "$python" scripts/engine-tests-compare.py --failed "$work" stock "$name" > "$scratch/failed"
        mapfile -t failed < "$scratch/failed"
        [ ${#failed[@]} -eq 0 ] || pytest_run "$name-again" "$server" "$socket" "${failed[@]}"
    fi
    echo "$((SECONDS - start)) s"
}

pytest_run() {
    local name=$1 server=$2 socket=$3 status=0
    shift 3
    # a proxy that is not there: nothing is fetched
    env --chdir="$tree/tools/server/tests" \
        TEST_SERVER="$server" TEST_MODEL="$scratch/tiny.gguf" TEST_DRAFT_SOCKET="$socket" \
        LLAMA_SERVER_BIN_PATH="$scratch/llama-server" PORT="$port" LLAMA_CACHE="$scratch/cache" LLAMA_ARG_THREADS=1 \
        http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1,localhost \
        setsid timeout -k 5 "$limit" "$python" -m pytest -q -m "not slow" --timeout 60 -p no:cacheprovider \
        --junitxml "$work/$name.xml" "$@" > "$work/$name.log" 2>&1 &
    tests=$!
    wait "$tests" || status=$?
    tests=
    # 1: tests failed; above: pytest itself did
    if [ "$status" -gt 1 ]; then
        tail -n 20 "$work/$name.log"
        echo "$name: pytest ended with status $status, see $work/$name.log"
        return 1
    fi
    tail -n 1 "$work/$name.log"
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
