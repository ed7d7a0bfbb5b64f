#!/usr/bin/env bash
# What ops/gpu-check.sh needs of the machine that it runs on, one line each, with what to do about what is not there.
# tests/gpu/machine.sh PACK-FOLDER. Exit status 1 when something is missing.
set -uo pipefail
pack=$1 missing=0

lacks() {
    echo "MISSING  $*"
    missing=1
}

has_header() {
    [ -f "$pack/include/$1" ] || printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" | gcc -E -x c - >/dev/null 2>&1
}

if ! command -v nvidia-smi >/dev/null; then
    lacks "nvidia-smi: this machine has no NVIDIA driver, so nothing can run on a GPU here (a container may hide it: --gpus all)"
elif ! gpus=$(nvidia-smi --query-gpu=name,compute_cap,memory.total,memory.used,driver_version --format=csv,noheader 2>&1); then
    lacks "a GPU: nvidia-smi says: $gpus"
else
    echo "GPU      $gpus"
    case $(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1) in
    [1-7].*) lacks "a GPU of compute capability 8.0 (A100) or later" ;;
    esac
fi
for tool in nvcc cmake make gcc g++ python3; do
    if path=$(command -v "$tool"); then
        echo "$(printf '%-8s' "$tool") $path, $("$tool" --version 2>&1 | grep -m 1 -E '[0-9]+\.[0-9]+')"
    elif [ "$tool" = nvcc ]; then
        lacks "nvcc: the CUDA toolkit is not in the PATH, CUDA_HOME or /usr/local/cuda: set CUDA_HOME"
    else
        lacks "$tool"
    fi
done
command -v compute-sanitizer >/dev/null || lacks "compute-sanitizer, which belongs to the CUDA toolkit: the step sanitizer will fail"
for header in jansson.h pcre2.h utf8proc.h cmocka.h; do
    has_header "$header" || lacks "$header: run ops/gpu-check.sh --pack on a Debian with a network, and copy $pack here"
done
versions=$(python3 -c 'import torch, transformers; print(torch.__version__, transformers.__version__, "CUDA", torch.cuda.is_available())' 2>&1) ||
    lacks "python3's torch and transformers: checkpoints, comparisons and ceilings will fail; $(tail -n 1 <<<"$versions")"
[ "$missing" -eq 1 ] || echo "torch    $versions"
[ "$missing" -eq 0 ] && echo "all that is needed is there"
exit "$missing"
