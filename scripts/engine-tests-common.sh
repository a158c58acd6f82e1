# Sourced by engine-tests.sh and test-upstream.sh: what both need to run the engine's own server tests (tools/server/tests) offline.
#
# Wants: source (the engine's), scratch (a folder of this run), work (where reports and logs stay), limit (seconds of a run), port,
# timeout (seconds of a test), tests (empty). Gives: python, tree.

# a folder of packages: a virtual environment would want python3-venv installed
packages=${ADED_HOME:-$HOME/.aded}/engine-tests/python
python=python3
export PYTHONPATH=$packages

prepare_tests() {
    if [ ! -e "$packages/ready" ]; then
        echo "setting up Python's test packages in $packages"
        rm -rf -- "$packages"
        "$python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore --target "$packages" \
            -r "$source/tools/server/tests/requirements.txt" pyyaml pytest-timeout
        touch "$packages/ready"
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
    cat > "$scratch/llama-server" << 'WRAPPER'
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
[ -z "$model" ] || [ -z "${TEST_DRAFT_SOCKET:-}" ] || args+=(--draft-socket "$TEST_DRAFT_SOCKET" --draft-timeout-us 20000)
exec "$TEST_SERVER" "${args[@]}"
WRAPPER
    chmod +x "$scratch/llama-server"
}

pytest_run() { # name, pytest arguments; what else the program under test needs stands in the environment
    local name=$1 status=0
    shift
    # a proxy that is not there: nothing is fetched
    env --chdir="$tree/tools/server/tests" TEST_MODEL="$scratch/tiny.gguf" \
        LLAMA_SERVER_BIN_PATH="$scratch/llama-server" PORT="$port" LLAMA_CACHE="$scratch/cache" LLAMA_ARG_THREADS=1 \
        http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1,localhost \
        setsid timeout -k 5 "$limit" "$python" -m pytest -q -m "not slow" --timeout "$timeout" -p no:cacheprovider \
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
