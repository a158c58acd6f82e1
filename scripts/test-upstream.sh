#!/usr/bin/env bash
# The engine's own server tests (tools/server/tests) through aded-server: what passes on the stock build must pass on it, every time.
#
#   npm run test:upstream [-- pytest arguments, such as unit/test_completion.py]
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
port=${ADED_UPSTREAM_PORT:-18180}

cd "$root"
stock=${ADED_STOCK_SERVER:-$(node bin/aded.js engine build --stock)}
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

# one set of Python packages for both scripts
venv=$ADED_HOME/engine-tests/venv
python=$venv/bin/python
if [ ! -e "$venv/ready" ]; then
    echo "setting up Python's test packages in $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$source/tools/server/tests/requirements.txt" pyyaml pytest-timeout
    touch "$venv/ready"
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

# whatever model a test asks for, the tiny one is taken: models of the hub can't be had everywhere
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
exec "$TEST_SERVER" "${args[@]}"
WRAPPER
chmod +x "$scratch/llama-server"

pytest_run() { # name, server, pytest arguments
    local name=$1 server=$2 status=0 start=$SECONDS
    shift 2
    echo "--- $name"
    # a proxy that is not there: nothing is fetched. A step of this model takes less time than a draft: without more patience most
    # would come too late. The stock build does not know that variable.
    env --chdir="$tree/tools/server/tests" \
        TEST_SERVER="$server" TEST_MODEL="$scratch/tiny.gguf" LLAMA_SERVER_BIN_PATH="$scratch/llama-server" \
        PORT="$port" LLAMA_CACHE="$scratch/cache" LLAMA_ARG_THREADS=1 LLAMA_ARG_DRAFT_TIMEOUT_US=20000 \
        ADED_DRAFT_FIXED_NODES=6 ADED_DRAFT_MATRIX_MEMORY="16 MiB" \
        http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1,localhost \
        setsid timeout -k 5 "$limit" "$python" -m pytest -q -m "not slow" --timeout 120 -p no:cacheprovider \
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
    echo "$((SECONDS - start)) s"
}

pytest_run stock "$stock" "$@"
names=()
for ((i = 1; i <= runs; i++)); do
    name=aded-server-$i
    names+=("$name")
    pytest_run "$name" "$root/bin/aded-server" "$@"
    "$python" scripts/engine-tests-compare.py --failed "$work" stock "$name" > "$scratch/failed"
    mapfile -t failed < "$scratch/failed"
    # many of these tests depend on time
    [ ${#failed[@]} -eq 0 ] || pytest_run "$name-again" "$root/bin/aded-server" "${failed[@]}"
done

# what the drafters say of themselves when their engine is gone
{ grep -o '"drafted_nodes":[0-9]*' "$ADED_HOME/logs/aded-server.log" 2> /dev/null || true; } |
    awk -F: '{ nodes += $2; if ($2 > 0) servers++ } END { printf "%d servers had a drafter beside them, %d of them drafted, %d nodes in all\n", NR, servers, nodes }'

"$python" scripts/engine-tests-compare.py "$work" stock "${names[@]}"
