#!/usr/bin/env bash
# The engine on a GPU: builds it, runs its tests there beside the CPU and transformers, then measures it; one table, in 9 minutes.
#
#   ops/gpu-check.sh             on the machine with the GPU: nvcc, g++, cmake, python3 with torch and transformers; no network
#   ops/gpu-check.sh --pack      before, on a Debian with ops/install.sh's packages: puts the libraries that the machine may
#                                lack into build/gpu-pack, to be copied with the tree
#   ops/gpu-check.sh --dry-run   only says what would be run
#
# Each step has a limit of its own and a log in build/gpu-check; a step that fails hides no other. Exit status 0 when all passed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

dry=''
pack=build/gpu-pack out=build/gpu-check
case "${1:-}" in
'') ;;
--dry-run) dry=1 ;;
--pack)
    set -e
    libs=$(dirname "$(gcc -print-file-name=libjansson.a)")
    mkdir -p "$pack/include" "$pack/lib"
    cp /usr/include/{jansson.h,pcre2.h,utf8proc.h,cmocka.h} "$pack/include/"
    cp "$(find /usr/include -name jansson_config.h | head -n 1)" "$pack/include/"
    cp "$libs"/lib{jansson,pcre2-8,utf8proc}.a "$pack/lib/"
    cp "$libs/libcmocka.so" "$libs/libcmocka.so.0" "$pack/lib/"
    du -sh "$pack"
    exit 0
    ;;
--help | -h)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "ops/gpu-check.sh: unknown option '$1' (see --help)" >&2
    exit 2
    ;;
esac

mkdir -p "$out"
rows=() failed=0

# step NAME LIMIT-SECONDS WHAT-TO-LOOK-AT COMMAND…
step() {
    local name=$1 limit=$2 look=$3 log=$out/$1.log begun=$SECONDS rc=0 result
    shift 3
    if [ -n "$dry" ]; then
        printf '%-11s within %3d s: %s\n' "$name" "$limit" "$*"
        return 0
    fi
    printf '== %s (%d:%02d)\n' "$name" $((SECONDS / 60)) $((SECONDS % 60))
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 || rc=$?
    case $rc in
    0) result=ok ;;
    124 | 137) result="NOT DONE in $limit s" ;;
    *) result="FAILED ($rc)" ;;
    esac
    rows+=("$(printf '%-11s %-20s %4d s  %s' "$name" "$result" $((SECONDS - begun)) "$(tail -n 1 "$log" | cut -c1-110)")")
    [ "$rc" -eq 0 ] && return 0
    failed=$((failed + 1))
    tail -n 25 "$log"
    printf '   look at: %s; all of it: %s\n' "$look" "$log"
    return "$rc"
}

capability() { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. '; }
arch=$(capability) || true
# NCCL is PyTorch's, where the toolkit has none
nccl=$(python3 -c 'import nvidia.nccl, os; print(os.path.join(list(nvidia.nccl.__path__)[0], "lib"))' 2>/dev/null) || true
export LD_LIBRARY_PATH="${nccl:+$nccl:}$pack/lib:${LD_LIBRARY_PATH:-}"
configure=(cmake -S tests/gpu -B "$out/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMILLRACE_CUDA=ON
    -DMILLRACE_CUDA_ARCHITECTURES="${arch:-90}")
[ -d "$pack" ] && configure+=(-DMILLRACE_PACK="$PWD/$pack")
bin=$out/build/bin
shape=$out/shape.json
cat >"$shape" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
 "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
 "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
 "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"}
END

step machine 15 "is there a driver, and a GPU that nobody else uses?" \
    bash -c 'nvcc --version | tail -n 2; cmake --version | head -n 1; g++ --version | head -n 1
             python3 -c "import torch, transformers; print(torch.__version__, transformers.__version__)"
             nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader'
step configure 30 "cmake's error; without $pack the -dev packages of jansson, PCRE2, utf8proc and cmocka must be there" "${configure[@]}"
step build 150 "the compiler's first error" cmake --build "$out/build" -j "$(nproc)" || true
step tests 45 "the test's name says what a user would notice; then engine/cuda/forward.cu, and the kernel's header" "$bin/test_cuda"
step checkpoints 45 "python3 and its transformers" python3 tests/gpu/checkpoints.py "$out/models"
for model in llama-f32 llama-bf16 qwen2-bf16; do
    step "$model" 12 "logits: a kernel; only greedy tokens: tests/gpu/compare.c has the bar" "$bin/compare" "$out/models/$model"
done
step int8 12 "engine/cuda/linear.cu, which rounds as the CPU does" "$bin/compare" "$out/models/llama-bf16" int8
step sanitizer 45 "compute-sanitizer's first report; the kernel and line are in it" \
    compute-sanitizer --error-exitcode 9 "$bin/compare" "$out/models/qwen2-bf16"
# shellcheck disable=SC2016 # these expand in the shell that is started
step ceilings 25 "python3 tests/gpu/ceilings.py" bash -c 'python3 tests/gpu/ceilings.py >"$0/ceilings.json" && cat "$0/ceilings.json"' "$out"
for weights in stored int8 fp8; do
    # shellcheck disable=SC2016
    step "bench-$weights" 30 "millrace-engine bench --device cuda; inspect --memory --device cuda for what it takes" \
        bash -c '"$0" bench --device cuda --random "$1" --weights "$2" --context 512 --batch 1,8,32 --repeat 1 --max-context 2048 \
                 --step-tokens 512 --json >"$3/bench-$2.json" && echo measured' "$bin/millrace-engine" "$shape" "$weights" "$out"
done
[ -z "$dry" ] || exit 0

printf '\n'
printf '%s\n' "${rows[@]}"
printf '\n'
python3 tests/gpu/table.py "$out" || true
printf '\n%d of %d steps failed\n' "$failed" "${#rows[@]}"
[ "$failed" -eq 0 ]
