"""The text that the golden tokenizers are trained on, and the strings that they are tried with."""
import random

PROSE = [
    "A millrace is the channel that carries the river to the mill wheel: requests flow in, workers grind, answers flow out.",
    "The quick brown fox jumps over the lazy dog; it's what they'll say, don't you think? I'd rather we've 3 or 4 more.",
    "你好，世界！今天的天气很好，我们去河边走走吧。水车转动，磨坊磨面。请介绍一下你自己，谢谢。",
    "これは水車小屋の物語です。カタカナとひらがなと漢字が混ざっています。",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёлка, объём, подъезд.",
    "Zażółć gęślą jaźń. Fünf große Äpfel. Où est l'élève? El niño comió piñata. Smörgåsbord på ön.",
    "مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך? नमस्ते दुनिया कैसे हैं आप สวัสดีชาวโลก",
    "안녕하세요 세계, 오늘 날씨가 좋네요. Xin chào thế giới, hôm nay trời đẹp. Καλημέρα κόσμε, πώς είσαι;",
    "def main(argv):\n    for i in range(10):\n        if i % 2 == 0:\n            print(f\"{i:>4}\", end='')\n    return 0\n",
    "int main(void) {\n\tchar buf[256];\n\tsnprintf(buf, sizeof buf, \"%d\\n\", 42);\n\treturn (buf[0] != '4') && 1 << 3;\n}\n",
    "<html><body class=\"a b\">&nbsp;&lt;p&gt;</body></html> https://example.org/path?x=1&y=2#top user@example.org",
    "In 2024 there were 12,345.678 items (3.14e-10), or 100% of 0x1F4A9; call +1 (555) 010-9999 at 09:30. v1.2.3-rc4",
    "😀 😃 👍🏽 👩‍👩‍👧‍👦 🇩🇪 🇯🇵 ❤️ ✨ 🏳️‍🌈 ½ ² ① Ⅷ ™ € ¥ £ → ≤ ∑ ∞ ░█ ♠♥",
]


def training_text():
    rng = random.Random(7)
    words = sorted({w for p in PROSE for w in p.split(" ")})
    return PROSE * 3 + [" ".join(rng.choices(words, k=40)) for _ in range(300)]


WRITTEN = [
    "", " ", "  ", "   ", "a", " a", "a ", "  a", "a  ", " a b ", "a  b   c    d     e", "\n", "\n\n", "\n\n\n", "\r\n",
    "\r\n\r\n", "\r", " \n", "\n ", " \n ", "  \n\n  ", "\t", "\t\t", " \t ", "a\tb", "a\n b", "a \nb", "a\r\nb\r\n",
    "\n \n \n", "x \n\n  y", "x\n\n\n   ", "tail   \n", "    indented\n        more\n", "\v", "\f", "a\vb\fc", "\x00",
    "nul\x00inside", "\x01\x02\x7f", "bell\x07", "\u0085", "a\u0085b", "\u00a0", "a\u00a0b", "\u00a0\u00a0 x", "\u1680",
    "\u180e", "a\u180eb", " \u180e x", "\u2000\u2001\u200a", "\u2028", "a\u2028b\u2029c", "\u202f", "\u205f", "\u3000",
    "你\u3000好", "\ufeffbom", "zero\u200bwidth", "\u200d", "soft\u00adhyphen",
    "Hello", "Hello, world!", "hello HELLO HeLLo", "It's", "it's he'll we've I'm you're he'd don't", "IT'S HE'LL WE'VE",
    "'s't're've'm'll'd", "' s", "''s", "o'clock 'twas rock'n'roll", "x'S y'T z'LL", "'\u017f", "a'\u017fb", "it\u2019s",
    "foo_bar fooBar FooBar FOOBar fooBAR2baz", "a.b.c...d", "...", "!!!???", "?!\n", "...\n\n...", "--", "- - -",
    "a-b--c---d", "-", "--x", "x--", "$100", "100$", "#hashtag @user", "&&||", "a&&b", "<<<>>>", "[[x]]", "{{y}}", "\\", "\\\\n",
    "\"quoted\" 'single' `code`", "(a)(b)", "a/b\\c", "C:\\Users\\x", "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
    "!a #b $c %d &e 'f (g )h *i +j ,k -l .m /n :o ;p <q =r >s ?t @u [v \\w ]x ^y _z `a {b |c }d ~e",
    "0", "1", "12", "123", "1234", "12345", "123456", "1234567890", "1 2 3", "12 34", " 123", "3.14159", "1,000,000",
    "1e10", "0x7fff", "2024-07-26T12:34:56Z", "v1.2.3", "a1b2c3", "1st 2nd 3rd", "٣٤٥", "१२३", "๑๒๓", "１２３４", "½¼¾",
    "x² + y³", "①②③", "ⅧⅨ", "〇一二三", "𝟘𝟙𝟚", "1\u00a0000", "10%", "№5", "1/2", "१a२",
    "你好", "你好，世界！", "你好 世界", " 你好", "你好 ", "中文abc中文", "中文123中文", "我是一个小模型。", "「引号」《书名》", "龥龦龧",
    "㐀䶵", "𠀀𠀁𪛖", "𰻞𰻞面", "こんにちは", "カタカナ", "ｶﾀｶﾅ", "ひらカタ漢字", "ー々〆〇", "안녕하세요", "한국어 텍스트", "ㄱㄴㄷ", "각",
    "Привет, мир!", "Ёжик ёлка", "Größe straße STRASSE", "ﬁn ﬃ ﬆ", "İstanbul ılık", "ǅ ǈ Ǆ", "ʰʲʷ ˈa", "ªº", "Ⓐⓑ🅰",
    "élève", "e\u0301le\u0300ve", "\u0301", "a\u0301\u0301\u0301", "\u0301a", " \u0301", "n\u0303 \u1e9b\u0323",
    "\u1e0b\u0323", "q\u0307\u0323", "q\u0323\u0307", "\u0344", "\u0958", "A\u030a \u212b \u00c5", "\u2126 \u03a9",
    "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0b47\u0b56", "\u30ab\u3099 \uff76\uff9e", "\u0f71\u0f72\u0f74", "a\u0315\u0300\u05ae\u0062",
    "x\u0897\u0301", "a\u08ca\u0323", "\u1e4ec", "\U0001e08f\u0301", "\U00011935\U00011930", "\ufdfa", "㋿ ㍻", "ｗｉｄｅ text",
    "é x ê", "xx", "axxb", "axéxb",
    "مرحبا بالعالم", "مَرْحَبًا", "שלום עולם", "שָׁלוֹם", "a שלום b", "\u202eabc\u202c", "ا\u200cب", "नमस्ते", "क्षि", "สวัสดี", "ภาษาไทย", "ကို", "ខ្មែរ",
    "😀", "😀😀", " 😀", "😀 ", "a😀b", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "❤", "1️⃣", "#️⃣", "🩷love", "🫨", "🪿 goose", "🫩x", " 🫆",
    "✨✨✨", "→←↑↓", "≤≥≠", "∑∏∫", "░▒▓█", "♠♥♦♣", "©®™", "€100", "¥¥", "𝓗𝓮𝓵𝓵𝓸", "🄰🅱", "\U0001f8b2", "\U0001ccd6",
    "\ue000\uf8ff", "\U000f0000", "\ufffd", "\uffff", "\U0010ffff", "\u0378", "\U00031350", "\U0002ebf0", "\U00016100",
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    "{\"key\": [1, 2.5, null, true], \"s\": \"\\u00e9\"}", "SELECT * FROM t WHERE a >= 'x''y';", "#!/bin/sh\nset -e\n",
    "<div class=\"x\">&amp;</div>", "```python\nprint('hi')\n```", "$\\frac{1}{2}$ \\[x^2\\]", "a\n\n\n\nb\n\n",
    "import os\r\nimport sys\r\n\r\n\r\ndef x():\r\n\tpass\r\n", "https://example.org/a?b=c&d=%20e#f", "if(a)b;else{c}",
    "x = \"\"\"doc\n   string\"\"\"", "\t\t\tdeep\n\t\t\t\tdeeper", "a ||= b&.c", "λx.x", "naïve café", "a b", "user@example.org",
    # what looks like control tokens, or nearly
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|endoftext|", "|endoftext|>",
    "<|im_start|>system\nYou are evil.<|im_end|>\n<|im_start|>user\n", "<|im_start|", "<|IM_START|>", "<|im_start |>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<|eot_id|>", "<|eot_id|>x<|eom_id|>",
    "<｜User｜>hi<｜Assistant｜><think>\nhm\n</think>", "<|User|>", "<｜begin▁of▁sentence｜>x<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence", "<think>", "</think>", "<think", "a<think>b</think>c", "<tool_call>{}</tool_call>", "<|EOT|>",
    "<s>", "a <s> b", "<s></s>", "<<s>>", "<l>", "a  <l>  b", "a  <r>  b", "a  <lr>  b", "<r> <l>", "<r>   <r>  <l>", "<lr>\n<lr>",
    "<r>\u3000x", "x\u2003<l>", "word", "a word b", "aword", "words", "word.", "word_", "(word)", "wordy word", "wordé", "ⓐword",
    "word-wordy", "word\u200dx", "    ", "     ", "         x", "x            y", "né", "ne\u0301", "née", "ﬁn", "fin", "ｗｉｄｅ", "wide",
    "øöúÿõ÷ûýÀùÁþü", "Ünïcödé øre", "Søren Kierkegaard", "Àlex", "<|python_tag|>", "<|return|>", "<｜fim▁hole｜>",
]

INVALID = [
    "ff", "80", "61ff62", "c3", "61c3", "c328", "e4bd", "e4bd61", "e4bda0e5a5", "f09f98", "f09f9861", "f09f", "c080", "e08080",
    "eda080", "edbfbf", "f4908080", "f8888080", "fefe", "61e4bda0ff62", "20c320", "0ac30a", "e4c3a9", "f0c3a9", "c3c3a9",
    "f0808080", "e0a0", "bf", "8080808080", "c2", "3cff7c656e646f66746578747c3e", "f09f98803f80f09f",
]

POOL = [
    "abcdefghij", "ABCXYZ", "0123456789", " ", "  ", "\n", "\t", ".,;:!?", "'\"()[]{}<>|", "-_=+*/\\&^%$#@~`", "éüñçøß", "你好世界的水车磨坊",
    "あいうカタカナ", "한국어", "абвгд", "αβγ", "العربية", "שלום", "😀👍🏽❤️\u200d", "\u0301\u0323\u0308", "½²①", "\u00a0\u3000\u2003", "\r\n",
    "𝓗𠀀🩷🫨", "'s", "'LL", "<|", "|>", "the ", " river",
]


def random_string(rng):
    out = ""
    for _ in range(rng.randint(1, 14)):
        run = rng.choice(POOL)
        out += run if len(run) <= 2 else "".join(rng.choices(run, k=rng.randint(1, 5)))
    return out


def hard_strings(rng):
    cases = [{"text": s} for s in WRITTEN + PROSE + [" ".join(PROSE)]]
    cases += [{"hex": h} for h in INVALID]
    cases += [{"text": random_string(rng)} for _ in range(80)]
    cases += [{"hex": rng.randbytes(rng.randint(1, 24)).hex()} for _ in range(20)]
    cases += [{"text": t, "repeat": n} for t, n in (
        ("a", 300), ("ab", 200), (" ", 300), ("\n", 200), (" \n", 150), ("你", 200), ("1", 200), ("!", 200), ("\u0301", 100),
        ("😀", 80), ("e\u0301", 80), ("xyz ", 80), ("the river", 40), ("<|im_start|>", 20), ("aB", 100))]
    return cases
