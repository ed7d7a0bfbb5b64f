#!/usr/bin/env python3
"""Answers drawn under the engine's masks, judged by the jsonschema package: one JSON object a line on the input, as
`test_engine_grammar --print` writes them.

    python3 -m venv .venv
    .venv/bin/pip install jsonschema==4.25.1 rfc3339-validator==0.1.4
    build/release/tests/test_engine_grammar --print | .venv/bin/python tests/golden/grammar/check_answers.py
"""
import json
import sys

from jsonschema import Draft202012Validator


def main():
    answers = wrong = 0
    for line in sys.stdin:
        row = json.loads(line)
        validator = Draft202012Validator(row["schema"], format_checker=Draft202012Validator.FORMAT_CHECKER)
        errors = list(validator.iter_errors(json.loads(row["answer"])))
        answers += 1
        wrong += bool(errors)
        if errors:
            print(f"{row['name']}: {row['answer']}: {errors[0].message}")
    print(f"{answers} answers, {wrong} of them wrong")
    return 1 if wrong or not answers else 0


if __name__ == "__main__":
    sys.exit(main())
