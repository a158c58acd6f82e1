#!/usr/bin/env bash
# The batch-invariant CPU kernels on instruction sets other than this machine's: builds ggml alone for each and runs the part of
# test-batch-invariance that needs nothing else (matrix multiplication and attention; no models).
#
#   scripts/kernel-arch-tests.sh [avx512 avx2 avx2-vnni neon-dotprod neon asan ...]     (default: all that this machine can run)
#
# avx512        what the compiler makes of -march=native with AVX-512 VNNI
# avx2          8 lanes, signed weights
# avx2-vnni     8 lanes, unsigned weights, as with AVX-VNNI; run through the AVX-512 forms of the same instructions, which no build of the
#               engine chooses, so that a machine without AVX-VNNI can check that path
# neon-dotprod, neon   with and without the dot product instructions, under qemu; needs Debian's g++-aarch64-linux-gnu and qemu-user
# asan          -march=native with AddressSanitizer and UBSan
#
# Builds lie in $ADED_HOME/kernel-arch-tests. ADED_ENGINE_SOURCE names the engine's patched source, ADED_JOBS the compilers at once.
# Not part of `npm test`: a build of each takes minutes. The last line is "N passed, N failed", over all.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=${ADED_HOME:-$HOME/.aded}/kernel-arch-tests
jobs=${ADED_JOBS:-$(nproc)}

cd "$root"
if [ -z "${ADED_ENGINE_SOURCE:-}" ]; then
    ADED_ENGINE_SOURCE=$(cd -- "$(dirname -- "$(node bin/aded.js engine build)")/../../src" && pwd)
fi
source=$ADED_ENGINE_SOURCE

# threads that spin while they wait slow each other down where there are more of them than cores
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

passed=0 failed=0

has() { grep -qw "$1" /proc/cpuinfo; }

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    if [ "$(uname -m)" = x86_64 ]; then
        targets=(asan)
        ! has avx512_vnni || targets+=(avx512 avx2-vnni)
        ! has avx2 || targets+=(avx2)
    else
        targets=(asan)
    fi
    if command -v aarch64-linux-gnu-g++ qemu-aarch64 > /dev/null; then
        targets+=(neon-dotprod neon)
    fi
fi

# name, compiler, flags of the compiler, command before the program, arguments of the program, arguments of cmake
target() {
    local name=$1 cxx=$2 flags=$3 runner=$4 args=$5 build=$work/$1 start=$SECONDS
    shift 5
    echo "--- $name"
    # CMake refuses a build folder that another source was configured in
    grep -qs "^CMAKE_HOME_DIRECTORY:INTERNAL=$(readlink -f "$source")\$" "$build/CMakeCache.txt" || rm -rf -- "$build"
    cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=ON \
        -DLLAMA_BUILD_{COMMON,TESTS,TOOLS,EXAMPLES,SERVER,UI,APP}=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_CURL=OFF \
        -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" "$@" > "$build.log" 2>&1 || fail_build "$build.log"
    cmake --build "$build" -j "$jobs" --target ggml >> "$build.log" 2>&1 || fail_build "$build.log"
    # shellcheck disable=SC2086
    "$cxx" -std=c++17 -O2 -fopenmp $flags -DBATCH_INVARIANCE_OPS_ONLY -I "$source/ggml/include" -I "$source/tests" \
        "$source"/tests/{test-batch-invariance,batch-invariance-mul-mat,batch-invariance-attention,batch-invariance-geglu}.cpp \
        -o "$build/test" -Wl,--start-group "$build"/ggml/src/libggml*.a -Wl,--end-group -lpthread -ldl -lm >> "$build.log" 2>&1 || fail_build "$build.log"
    local status=0 last
    # shellcheck disable=SC2086
    $runner "$build/test" $args > "$build.out" 2>&1 || status=$?
    tail -n 20 "$build.out"
    last=$(tail -n 1 "$build.out")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        [ "$status" -eq 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ] || failed=$((failed + 1))
    else
        echo "$name: ended with status $status, see $build.out"
        failed=$((failed + 1))
    fi
    echo "$name: $((SECONDS - start)) s"
}

fail_build() {
    tail -n 30 "$1"
    echo "the build failed, see $1"
    exit 1
}

neon() { # name, architecture
    target "$1" aarch64-linux-gnu-g++ "" "qemu-aarch64 -L /usr/aarch64-linux-gnu" "-q -t 3" \
        -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH="$2"
}

mkdir -p "$work"
for name in "${targets[@]}"; do
    avx2=(-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF)
    case $name in
        avx512) target avx512 c++ "" "" "" -DGGML_NATIVE=ON ;;
        avx2) target avx2 c++ "" "" "" "${avx2[@]}" ;;
        avx2-vnni) target avx2-vnni c++ "-mavx512vl -mavx512vnni -mno-avx512bw -mno-avx512dq" "" "" "${avx2[@]}" ;;
        neon-dotprod) neon neon-dotprod armv8.2-a+dotprod ;;
        neon) neon neon armv8-a ;;
        asan) UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 target asan c++ "-fsanitize=address,undefined -fno-omit-frame-pointer -g" "" "-t 3" -DGGML_NATIVE=ON \
            -DCMAKE_C_FLAGS_RELEASE="-O1 -DNDEBUG" -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" ;; # with -O3 GCC takes half an hour for one file
        *) echo "kernel-arch-tests: there is no \"$name\"; there are avx512 avx2 avx2-vnni neon-dotprod neon asan"; exit 2 ;;
    esac
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
