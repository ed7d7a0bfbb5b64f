#!/usr/bin/env bash
# The engine as a user has it: one answer drawn on the GPU, again with guesses of the tokens to come, and drawn on the CPU from the
# GPU's logits (which min_p does, so small that it leaves everything in) must be the same text.
# tests/gpu/generate.sh BIN-FOLDER [DEVICE]
set -euo pipefail
bin=$1 device=${2:-cuda}
answer() {
    "$bin/millrace-engine" generate --model ops/demo/millrace-demo --device "$device" --prompt 'What is Millrace?' \
        --max-tokens 64 --ignore-eos --temperature 0.8 --seed 7 "$@"
}
first=$(answer)
guessed=$(answer --guess-tokens 16)
elsewhere=$(answer --min-p 1e-30)
[ -n "$first" ] || { echo "there is no answer"; exit 1; }
[ "$first" = "$guessed" ] || { printf 'with guesses another answer:\n%s\n-- and not\n%s\n' "$guessed" "$first"; exit 1; }
[ "$first" = "$elsewhere" ] || { printf 'drawn by the CPU another answer:\n%s\n-- and not\n%s\n' "$elsewhere" "$first"; exit 1; }
echo "one answer, three ways: $(tr '\n' ' ' <<<"$first" | cut -c1-60)"
