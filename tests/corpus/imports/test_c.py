from pathlib import Path

import numpy as np
import torch

from corpus.imports.oracles import disagreements, edges, includes_of_tree_sitter, real_files
from midspan.corpus.imports import c

C = """/* #include "no_a.h" */
#include "a.h"  // #include "no_b.h"
  #  include <sys/b.h>
#include MACRO
/*
#include "no_c.h"
*/
const char *s = "/*"; char quote = '"';
#ifdef X
#include "dir/c.h" /* */
#endif
#define f(x) #x
"""
CPP = C + 'auto r = R"x(\n#include "no_d.h"\n)" )x"; int n = 1\'000\'000;\n#include <vector>\n'


def test_c_scan_finds_what_the_parser_finds():
    assert (
        c.includes(C) == includes_of_tree_sitter(C, "c") == [("a.h", True), ("sys/b.h", False), ("dir/c.h", True)]
    )
    assert c.includes(CPP) == includes_of_tree_sitter(CPP, "c++") == [*c.includes(C), ("vector", False)]


def test_c_scan_agrees_with_the_parser_on_real_headers():
    folders = [Path(np.get_include()), Path(torch.__file__).parent / "include"]
    texts = [(path, text) for path, text in real_files(folders, (".h", ".hpp"), 400) if len(text) < 100_000]
    count, wrong, where = disagreements(texts, c.includes, lambda text: includes_of_tree_sitter(text, "c++"))
    assert count > 500
    assert wrong <= 0.005 * count, where[:5]


def test_c_includes_beside_the_file_then_by_the_end_of_the_path():
    assert edges(
        {
            "src/main.c": '#include "util.h"\n#include "net/http.h"\n#include <shop/cart.h>\n#include <string.h>\n'
            '#include "../gen/table.inc"\n#include "gone.h"\n#include "../../util.h"',
            "src/util.h": "",
            "lib/util.h": "",
            "lib/net/http.h": '#include "../util.h"\n#include <util.h>\n#include "time.h"',
            "include/shop/cart.h": "#include <stdint.h>\n#import <cart.h>",
            "compat/string.h": "",
            "include/stdint.h": "",
            "gen/table.inc": "",
            "lib/time.h": "",
        }
    ) == {
        "src/main.c": ["src/util.h", "lib/net/http.h", "include/shop/cart.h", "gen/table.inc"],
        "lib/net/http.h": ["lib/util.h", "lib/time.h"],
        "include/shop/cart.h": ["include/stdint.h"],
    }
