from corpus.imports.oracles import edges, imports_of_java
from midspan.corpus.imports import java

JAVA = """/* import no.A; */
package com.shop . app;

import java.util.List;  // import no.B;
import static com.shop.Prices.of;
import com . shop.*;
@Tag("import no.C;") public class Main {
    char quote = '"'; String s = \"""
        import no.D; " \\\"""
        \""";
    // isn't
    List<Cart> carts; import_ x;
}
"""


def test_java_scan_finds_what_the_parser_finds():
    assert java.imports(java.without_noise(JAVA)) == imports_of_java(JAVA)
    assert java.package(JAVA) == "com.shop.app"
    assert java.package("class A {}") == ""


def test_java_imports_and_types_of_the_own_package():
    assert edges(
        {
            "main/shop/Cart.java": 'package com.shop;\nclass Cart { Price p; /* Tax */ String s = "Tax"; }',
            "main/shop/Price.java": "package com.shop;\nimport com.other.Tax;\nclass Price { Tax t; }",
            "main/shop/Tax.java": "package com.shop;\nclass Tax {}",
            "main/other/Tax.java": "package com.other;\nclass Tax { class Rate {} }",
            "main/other/Unused.java": "package com.other; class Unused {}",
            "test/shop/CartTest.java": "package com.shop;\nimport static com.shop.Price.of;\n"
            "import com.other.Tax.Rate;\nimport java.util.List;\nimport com.other.*;\n"
            "class CartTest { Cart c; Tax t; }",
            "a/Main.java": "class Main { Helper h; }",
            "a/Helper.java": "class Helper {}",
            "b/Helper.java": "class Helper {}",
        }
    ) == {
        "main/shop/Cart.java": ["main/shop/Price.java"],
        "main/shop/Price.java": ["main/other/Tax.java"],
        "test/shop/CartTest.java": [
            "main/shop/Price.java",
            "main/other/Tax.java",
            "main/shop/Cart.java",
            "main/shop/Tax.java",  # Java would take this one; a wildcard is not worth a rule of its own
        ],
        "a/Main.java": ["a/Helper.java"],
    }
