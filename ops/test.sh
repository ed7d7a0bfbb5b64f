#!/usr/bin/env bash
# Millrace's tests, all of them: install what they need, build, run every suite through ctest, print one line of counts.
#
#   ops/test.sh                  everything: release, ASan+UBSan, TSan, fuzzers (20 minutes on 2 cores)
#   ops/test.sh --quick          the release build's suites only
#   ops/test.sh --only REGEX     only the tests whose name matches, in the release build
#
# All but --only build the engine's CUDA backend as well (no GPU needed), and fetch a toolkit for it where there is none; where
# that is not possible, the last line says so. FUZZ_SECONDS is the time of each fuzz target (default: 60 for the engine's, 10
# for others), FUZZ_SEED (default 1) what it tries; FUZZ_SEED=0 hunts for what nobody has tried. Exit status 0 only when nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

quick='' only=''
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) quick=1 ;;
    --only)
        [ $# -ge 2 ] || { echo "ops/test.sh: --only needs a regular expression" >&2; exit 2; }
        quick=1 only=$2
        shift
        ;;
    --help | -h)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "ops/test.sh: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
    shift
done

cores=$(nproc)
slots=$((4 * cores)) # of ctest: tests/CMakeLists.txt says how many of them a test takes
reports=build/test-reports
passed=0 failed=0 skipped=0
say() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

build() { # PRESET
    say "build $1"
    cmake --preset "$1" -DMILLRACE_WERROR=ON -DMILLRACE_TESTS=ON >"$reports/$1-configure.log" 2>&1 || {
        cat "$reports/$1-configure.log" >&2
        return 1
    }
    cmake --build --preset "$1" -- --quiet
}

# The counts come from ctest's own report, so that a test that never ran can't pass, and a suite of which none ran has failed.
count() { # REPORT ATTRIBUTE
    local n=''
    [ ! -f "$1" ] || n=$(sed -n "s/.*[[:space:]]$2=\"\([0-9]*\)\".*/\1/p" "$1" | head -n 1)
    echo "${n:-0}"
}

slowest() { # REPORT
    sed -n 's/.*<testcase name="\([^"]*\)".* time="\([0-9.]*\)".*/\2 \1/p' "$1" | sort -rn |
        awk 'NR <= 15 { printf "%s%s %.1f s", NR == 1 ? "slowest: " : ", ", $2, $1 } END { print "" }'
}

suite() { # PRESET CTEST-ARGS…
    local preset=$1 report=$PWD/$reports/$1.xml tests fails skips
    shift
    say "test $preset"
    rm -f "$report"
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --output-junit "$report" "$@" || true
    tests=$(count "$report" tests) fails=$(count "$report" failures)
    skips=$(($(count "$report" skipped) + $(count "$report" disabled)))
    passed=$((passed + tests - fails - skips)) failed=$((failed + fails)) skipped=$((skipped + skips))
    if [ $((tests - skips)) -eq 0 ]; then
        echo "ops/test.sh: no test of $preset ran" >&2
        failed=$((failed + 1))
    else
        slowest "$report"
    fi
}

check() { # PRESET CTEST-ARGS…
    if build "$1"; then
        suite "$@"
    else
        echo "ops/test.sh: $1 cannot be built" >&2
        failed=$((failed + 1))
    fi
}

say "install"
sets=(build run test kafka)
[ -n "$quick" ] || sets+=(fuzz)
ops/install.sh "${sets[@]}"
mkdir -p "$reports"
if [ -z "$only" ]; then
    say "CUDA toolkit"
    ops/cuda-toolkit.sh || echo "There is none, so the CUDA backend is not built; its kernels are tested on this CPU all the same."
fi

if [ -n "$only" ]; then
    check release -R "$only"
else
    check release -j "$slots"
fi
if [ -z "$quick" ]; then
    for preset in asan tsan; do check "$preset" -L unit -j "$slots"; done
    check fuzz -L fuzz -j "$cores"
fi

say "done"
cuda=$(sed -n 's/^MILLRACE_NVCC:FILEPATH=//p' build/release/CMakeCache.txt)
case "$cuda" in
'' | *NOTFOUND) cuda='the CUDA backend was NOT built: no nvcc here (ops/cuda-toolkit.sh fetches one)' ;;
*) cuda='the CUDA backend was built for sm_80, sm_90, sm_90a and as PTX' ;;
esac
echo "$cuda"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
