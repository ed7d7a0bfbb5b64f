#!/usr/bin/env python3
"""Writes unicode_tables.inc: where the Unicode tables of our libraries and of HuggingFace tokenizers differ.

    python3.11 -m venv .venv          # 3.11: its unicodedata is Unicode 14, as PCRE2's oldest tables are
    .venv/bin/pip install tokenizers==0.23.3 unicodedata2==17.0.0
    .venv/bin/python engine/text/unicode_tables.py

Needed only to change the tables. HuggingFace tokenizers itself is asked, code point by code point: by a regex for each
general category and script, and by its NFC and NFKC normalizers.
"""
import unicodedata
from pathlib import Path

import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "run this with Python 3.11"
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split()
SCRIPTS = "Arabic Bopomofo Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()
ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def matching(pattern):
    """The code points that one match of the pattern can be."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for i in range(0, len(ALL), 65536):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, ALL[i : i + 65536]))):
            found.update(map(ord, piece))
    return found


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def newer_characters(properties):
    """(first, last, property) of what Unicode 14 has not assigned and the reference knows."""
    rows = []
    for name in properties:
        new = {c for c in matching(r"\p{%s}" % name) if unicodedata.category(chr(c)) == "Cn"}
        rows += [(lo, hi, name) for lo, hi in ranges(new)]
    return sorted(rows)


def write_newer(f, table, properties):
    f.write(f"static const struct newer_range {table}[] = {{\n")
    for lo, hi, name in newer_characters(properties):
        f.write(f'    {{0x{lo:X}, 0x{hi:X}, "{name}"}},\n')
    f.write("};\n\n")


def unnormalized():
    """Ranges that the reference's normalizers, which are older, leave alone and newer tables do not."""
    nfc, nfkc, nfd = (getattr(normalizers, n)().normalize_str for n in ("NFC", "NFKC", "NFD"))
    out = set()
    for c in ALL:
        ch = chr(c)
        if unicodedata2.combining(ch):
            # 232 and 1: a mark of any other class changes places with one of them
            probes = ("q\u0315" + ch, "q" + ch + "\u0334")
            if any(nfc(p) != unicodedata2.normalize("NFC", p) for p in probes):
                out.add(c)
        if nfkc(ch) != unicodedata2.normalize("NFKC", ch) or nfd(ch) != unicodedata2.normalize("NFD", ch):
            out.add(c)
        parts = unicodedata2.normalize("NFD", ch)
        if len(parts) > 1 and nfc(parts) != unicodedata2.normalize("NFC", parts):
            out.update((c, ord(parts[0])))
    return ranges(out)


def main():
    with open(Path(__file__).with_name("unicode_tables.inc"), "w") as f:
        f.write("/* Written by unicode_tables.py. */\n\n")
        write_newer(f, "newer_ranges", CATEGORIES)
        f.write('static const char *const script_names[] = {"%s"};\n\n' % '", "'.join(SCRIPTS))
        write_newer(f, "newer_scripts", SCRIPTS)
        f.write("static const struct range unnormalized_ranges[] = {\n")
        for lo, hi in unnormalized():
            f.write(f"    {{0x{lo:X}, 0x{hi:X}}},\n")
        f.write("};\n")


main()
