#!/usr/bin/env bash
# The engine as a user has it: an answer, and the same with guesses of the tokens to come, which makes other batches of it, must be
# one text; by temperature alone, by top_p and top_k, with a penalty (a guessed token's row is then the CPU's), and from rounded
# activations.
# tests/gpu/generate.sh BIN-FOLDER [DEVICE]
set -euo pipefail
bin=$1 device=${2:-cuda}
answer() {
    "$bin/millrace-engine" generate --model ops/demo/millrace-demo --device "$device" --prompt 'What is Millrace?' \
        --max-tokens 64 --ignore-eos --temperature 0.8 --seed 7 "$@"
}
for filters in '' '--top-p 0.9 --top-k 40' '--repetition-penalty 1.3' '--weights int8'; do
    # shellcheck disable=SC2086 # several words
    first=$(answer $filters) guessed=$(answer $filters --guess-tokens 16)
    [ -n "$first" ] || { echo "there is no answer"; exit 1; }
    [ "$first" = "$guessed" ] || { printf 'with guesses another answer:\n%s\n-- and not\n%s\n' "$guessed" "$first"; exit 1; }
done
echo "one answer, with guesses and without: $(tr '\n' ' ' <<<"$first" | cut -c1-60)"
