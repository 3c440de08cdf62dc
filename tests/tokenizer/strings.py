"""Texts that tokenizers get wrong: code, and mixtures drawn from a seed so that a failure can be repeated."""

import random

# fmt: off
SPECIAL_LOOKING = (
    "<PRE>", " <PRE>", "▁<PRE>", "<SUF>", " <SUF>", "<MID>", " <MID>", "<EOT>", "▁<EOT>", " <EOT>",
    "<|endoftext|>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
    "<fim_prefix>", "<｜fim▁hole｜>", "<0x0A>", "<step>", "<|fim_prefix|>", "<｜begin▁of▁sentence｜>",
    "[PAD151646]", "<repo_name>", "<file_sep>",
)

_FRAGMENTS = (
    "def ", "return", "self.", "(x, y)", " = ", "==", "->", "    ", "        ", "\t", "\t\t", "\n", "\n\n",
    "\r\n", "\r", " ", "  ", "   ", "'s", "'RE", "'ll", "don't", "0", "7", "1234567", "3.14e-10", "0xFF",
    "Hello", "world", "naïve", "Straße", "ſ", "'ſ", "日本語", "我想在", "한국어", "ខ្មែរ", "العربية",
    "हिन्दी", "🚀", "👩‍👩‍👧", "🏳️‍🌈", "☺", "e\u0301", "\u0301", "\u0308\u0303", "\u200b", "\u200d",
    "\ufeff", "\u00a0", "\u3000", "\u2028", "\x85", "\x00", "\x01", "\x04", "\x06", "\x1b[0m", "\x7f",
    "\x13\x14", "½", "²", "Ⅷ", "٣", "ﬁ", "Å", "\U00048000", "\U0010ffff", "𝒳", "𐍈", "####", "------",
    "======", "....", "!!!", "``", '"""', "#include <stdio.h>", "{}", "};", "//", "/*", "*/", "::", "<<",
    ">>=", "CamelCaseName", "snake_case_name", "__init__", "aaaaaaaa", "ﷺ", "~", "^", "$var", "@decorator",
    "%d\\n",
)
# fmt: on

CODE = (
    "",
    " ",
    "def middle(prefix: str, suffix: str) -> str:\n    return prefix[-1:] + suffix[:1]\n",
    "class Bridge:\r\n\tdef __init__(self):\r\n\t\tself.spans = [3, 14, 159, 2653]\r\n",
    "for (int i = 0; i < n; ++i) {\n  sum += a[i] * b[i];  // dot product\n}\n",
    "fn main() {\n    println!(\"{:?}\", (0..10).map(|x| x * x).collect::<Vec<_>>());\n}\n",
    "SELECT name, count(*) FROM spans WHERE length >= 1000 GROUP BY name;\n",
    "x = {'key': \"va'lue\", 'ünï': u'\\u00e9'}  # it's 'RE-quoted'\n\n\n\ny = x\n   \n",
    "if (a&&b||!c) return~x^y|z; /* <|im_start|>user */\n",
)  # fmt: skip


def fuzzed(count: int, seed: int, *, special: bool = False) -> list[str]:
    """Texts of 1 to 12 fragments or random characters; with `special`, all hold a special token's name."""
    random_ = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(random_.randint(1, 12)):
            if random_.random() < 0.8:
                parts.append(random_.choice(_FRAGMENTS))
            else:
                limit = random_.choice((0x80, 0x250, 0x3000, 0x11000, 0x110000))
                code = random_.randrange(limit)
                parts.append("?" if 0xD800 <= code < 0xE000 else chr(code))
            if special and random_.random() < 0.3:
                parts.append(random_.choice(SPECIAL_LOOKING))
        if special:
            parts.insert(random_.randint(0, len(parts)), random_.choice(SPECIAL_LOOKING))
        texts.append("".join(parts))
    return texts
