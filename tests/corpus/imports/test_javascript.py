from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.imports.oracles import edges, imports_of_javascript
from midspan.corpus.imports import javascript

JAVASCRIPT = [
    "import a from './a'",
    'import "b";',
    "import * as c from '../c.js'",
    "import d, { e as f,\n  // it's\n  g } from './d'",
    "export * from './e'",
    "export { a1 } from './f';",
    "export const from = 'h', x1 = { from: 'h' };",
    "const i = require('./i')",
    "const j = await import('./j');",
    'import(/* webpackChunkName: "k" */ `./k`)',
    "import(\n  './l' /* later */\n)",
    "import(`./${name}`); require(name); a.require('m'); a.from('m'); requires('m');",
    "const n = [...require('./n')];",
    "// import a from './no'",
    "/* require('./no')\n import './no' */",
    "const s = \"import 'no'\", t = 'require(\"no\")', u = 'it\\'s';",
    "const v = `import x from 'no' ${1} `;",
    "const w = /['\"`]/g, y = a / b / c; // don't",
    "const z = [/\\/*/, /[/'*]/];",
    "if (q) { r = s2 ? /'/ : /\"/ }",
    "const half = 1 /2; const o = { a: /`/ };",
    "function f() { return /`/ }",
    "const lines = [\n  /'`/,\n  /\\/`/,\n]",
]
TYPESCRIPT = [
    "import type { T } from './t'",
    "import u2 = require('./u')",
    "export type { V } from './v'",
    "type W = import('./w').W;",
    "function f<T extends string>(a: T): a is T { return require('./x') }",
]


def test_javascript_scan_finds_what_the_parser_finds():
    for text in JAVASCRIPT:
        assert javascript.imports(text) == imports_of_javascript(text), text
    for text in JAVASCRIPT + TYPESCRIPT:
        if text != TYPESCRIPT[3]:  # tree-sitter takes the type for an expression in other places only
            assert javascript.imports(text) == imports_of_javascript(text, "typescript"), text
    assert javascript.imports(TYPESCRIPT[3]) == ["./w"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(JAVASCRIPT), max_size=8).map("\n".join))
def test_javascript_scan_finds_what_the_parser_finds_in_any_sequence(text):
    expected = imports_of_javascript(text)
    if expected is not None:
        assert javascript.imports(text) == expected


def test_javascript_relative_names():
    texts = {
        "src/app.ts": "import './a'; import './b.js'; import './c'; import './style.css'; import '../data.json';"
        "import './view.vue'; import './gone'; import './e?raw'; import '..'; import '../../outside'",
        "src/a.ts": "",
        "src/a/index.ts": "",
        "src/b.ts": "",
        "src/c/index.jsx": "import '.'; import '..'; import '../a/'",
        "src/style.css": "",
        "data.json": "",
        "src/view.vue": "<template>it's <b>`</b></template>\n<script setup>\nimport x from './a'\n</script>",
        "src/e.d.ts": "",
        "index.mjs": "require('./src/e')",
    }
    assert edges(texts) == {
        "src/app.ts": [
            *(
                "src/a.ts",
                "src/b.ts",
                "src/c/index.jsx",
                "src/style.css",
                "data.json",
                "src/view.vue",
                "src/e.d.ts",
            ),
            "index.mjs",
        ],
        "src/c/index.jsx": ["src/a.ts"],
        "src/view.vue": ["src/a.ts"],
        "index.mjs": ["src/e.d.ts"],
    }


def test_javascript_aliases_of_a_configuration():
    assert edges(
        {
            "tsconfig.base.json": '{// shared\n"compilerOptions": '
            '{"paths": {"~/*": ["lib/*"], "~/x/*": ["x/*", "y/*"],},}}',
            "web/tsconfig.json": '{"extends": "../tsconfig.base", "compilerOptions": {"baseUrl": "./src"}}',
            "web/src/main.ts": "import '~/a'; import '~/x/b'; import 'util/c'; import 'react'",
            "web/src/util/c.ts": "import 'exact'",
            "lib/a.ts": "import 'lib/a'; import 'util/c'",  # the base of web is not its own
            "y/b.ts": "",
            "other/jsconfig.json": '{"extends": "./jsconfig.json", '
            '"compilerOptions": {"paths": {"exact": ["./e.js"]}}}',
            "other/e.js": "import 'exact'",
            "other/f.js": "import 'exact'",
            "bad/tsconfig.json": '{"compilerOptions": {"paths": [1], "baseUrl": 2}, "extends": [3, "./no"]',
            "bad/a.ts": "import 'a'",
        }
    ) == {
        "web/src/main.ts": ["lib/a.ts", "y/b.ts", "web/src/util/c.ts"],
        "other/f.js": ["other/e.js"],
    }


def test_javascript_workspace_packages():
    assert edges(
        {
            "packages/core/package.json": '{"name": "@shop/core", "main": "dist/index.js"}',
            "packages/core/src/index.ts": "export * from './cart'",
            "packages/core/src/cart.ts": "",
            "packages/ui/package.json": '{"name": "ui", '
            '"exports": {".": {"import": "./dist/x.js", "node": "./main.mjs"}}}',
            "packages/ui/main.mjs": "import '@shop/core'; import '@shop/core/cart'; import '@shop/core/src/cart'",
            "app/index.js": "require('ui'); require('ui/main'); require('@shop/none'); require('react')",
            "app/package.json": "not JSON",
        }
    ) == {
        "packages/core/src/index.ts": ["packages/core/src/cart.ts"],
        "packages/ui/main.mjs": ["packages/core/src/index.ts", "packages/core/src/cart.ts"],
        "app/index.js": ["packages/ui/main.mjs"],
    }
