from corpus.imports.oracles import edges, imports_of_go
from midspan.corpus.imports import go

GO = """// import "no/a"
package main

import "fmt"
import ( // a comment (with "no/b")
	alias "example.org/app/net"
	_ "embed" /* "no/c" */
	. `example.org/app/dot`; "os"
)
import()
var text = `
import "no/d"
`
var r = '"'
"""


def test_go_scan_finds_what_the_parser_finds():
    assert (
        go.imports(GO) == imports_of_go(GO) == ["fmt", "example.org/app/net", "embed", "example.org/app/dot", "os"]
    )


GO_FILES = {
    "main.go": 'package main\nimport (\n"fmt"\n"example.org/app/net"\n'
    '"example.org/app/net/http"\n"example.org/appendix"\n)',
    "net/a.go": 'package net\nimport "example.org/app/net/http"',
    "net/b.go": "package net",
    "net/b_test.go": 'package net_test\nimport "example.org/app/net"',
    "net/http/c.go": 'package http\nimport "example.org/app"',
}
GO_EDGES = {
    "main.go": ["net/a.go", "net/b.go", "net/http/c.go"],
    "net/a.go": ["net/http/c.go"],
    "net/b_test.go": ["net/a.go", "net/b.go"],
    "net/http/c.go": ["main.go"],
}


def test_go_packages_of_a_module():
    assert edges(GO_FILES | {"go.mod": "// the module\nmodule example.org/app // here\n\ngo 1.22\n"}) == GO_EDGES


def test_go_packages_without_a_module_file():
    assert edges(GO_FILES) == GO_EDGES


def test_go_modules_inside_a_module():
    assert edges(
        {
            "go.mod": "module example.org/app",
            "tools/go.mod": 'module "example.org/app/tools"',
            "tools/gen/gen.go": 'package gen\nimport "example.org/app/lib"',
            "lib/lib.go": 'package lib\nimport "example.org/app/tools/gen"',
        }
    ) == {"tools/gen/gen.go": ["lib/lib.go"], "lib/lib.go": ["tools/gen/gen.go"]}
