#!/usr/bin/env bash
# The CUDA toolkit for building the engine's GPU backend on a machine that has none: NVIDIA's own packages from PyPI, into
# build/cuda-toolkit (1.3 GB). No GPU, no root needed. Does nothing where an nvcc is already there.
#
#   ops/cuda-toolkit.sh [DIR]
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
--help | -h)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
-*)
    echo "ops/cuda-toolkit.sh: unknown option '$1' (see --help)" >&2
    exit 2
    ;;
esac
dir=${1:-build/cuda-toolkit}
if [ -x "$dir/bin/nvcc" ] && [ -x "$dir/bin/cuobjdump" ]; then exit 0; fi
for nvcc in "$(command -v nvcc || true)" "${CUDA_HOME:-/nowhere}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
    if [ -x "$nvcc" ]; then
        echo "The CUDA toolkit is there: $nvcc"
        exit 0
    fi
done

# One release of everything, as NVIDIA tests them together.
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9
    nvidia-cuda-cuobjdump==13.2.51 nvidia-cuda-nvdisasm==13.2.51) # the first of these two that there is; only a test needs them
work=$dir.partial
rm -rf "$work"
mkdir -p "$(dirname "$dir")"
python3 -m venv "$work"
echo "Fetching the CUDA toolkit (1.3 GB)…"
"$work/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
site=$(echo "$work"/lib/python3*/site-packages/nvidia)

# As compilers and linkers expect it: lib64, and names without versions. nvcc finds the rest beside itself.
(
    cd "$site/cu13"
    mv ../nccl nccl
    ln -sfn lib lib64
    for lib in lib/*.so.* nccl/lib/*.so.*; do ln -sf "$(basename "$lib")" "${lib%%.so.*}.so"; done
    ln -sfn ../nccl/include/nccl.h include/nccl.h
    for lib in nccl/lib/libnccl.so*; do ln -sf "../$lib" lib/; done
)
rm -rf "$dir"
mv "$site/cu13" "$dir"
rm -rf "$work"
echo "The CUDA toolkit is in $dir"
