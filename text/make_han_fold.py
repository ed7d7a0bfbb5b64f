#!/usr/bin/env python3
"""Writes han_fold.def, by which text_norm.c folds traditional Chinese characters to simplified ones.

    text/make_han_fold.py TSCharacters.txt > text/han_fold.def

TSCharacters.txt is data/dictionary/TSCharacters.txt of OpenCC (https://github.com/BYVoid/OpenCC, Apache-2.0). Of several
simplified forms the first, most usual one is taken; pairs outside the basic plane are left out: nobody types them.
"""
import sys


def pairs(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            traditional, _, simplified = line.strip().partition("\t")
            simplified = simplified.split(" ")[0]
            if len(traditional) == 1 == len(simplified) and traditional != simplified:
                if max(ord(traditional), ord(simplified)) < 0x10000:
                    yield ord(traditional), ord(simplified)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_han_fold.py TSCharacters.txt > han_fold.def")
    print("/* Traditional and simplified characters, by the traditional one's code. Written by make_han_fold.py from OpenCC's\n"
          " * TSCharacters.txt (https://github.com/BYVoid/OpenCC, Apache-2.0). clang-format off */")
    row = []
    for traditional, simplified in sorted(pairs(sys.argv[1])):
        row.append("{0x%04X,0x%04X}," % (traditional, simplified))
        if len(row) == 7:
            print("".join(row))
            row = []
    if row:
        print("".join(row))


if __name__ == "__main__":
    main()
