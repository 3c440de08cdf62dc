"""What the name of a file leaves open: extensions that several languages share, and how their texts differ.

One row a test: extensions, the language that it tells, the pattern that tells it. Rows of an extension are
tried in order and the first that is found decides; where none is, the name's own answer stands. `¶` is the
start of a line and the blanks after it, a single dot holds for every text.

The questions are linguist's (`heuristics.yml`: the same extensions, the same languages), the patterns are our
own. `¶` is searched for as a literal line end, twenty times faster than `^` in multi-line mode.
"""

import re

_TABLE = r"""
h         objective-c   ¶(?:@(?:interface|implementation|protocol|property|class|end|synthesize)\b|#import\s*[<"])
h         c++           std::
inc       php           <\?(?:php|=|\n)
h inc     c++           __has_cpp_attribute
h inc     c++           ¶(?:(?:class|namespace|using\s+namespace)\s+\w|template\s*<)
h inc     c++           ¶(?:public|private|protected)\s*:
h inc     c++           ¶(?:(?:(?:inline\s+|static\s+)*constexpr|typename|virtual|explicit|friend)\b|try\s*\{)
h inc     c++           ¶catch\s*\(
h inc     c++           ¶#\s*include\s*<(?:c(?:std\w+|math)|string|vector|map|memory|array|set|list|utility|tuple)>
h inc     c++           ¶#\s*include\s*<(?:functional|algorithm|type_traits|limits|[io]?stream|iostream)>
m         objective-c   ¶(?:@(?:interface|implementation|protocol|property|class|end|synthesize)\b|#import\s*[<"])
m         mercury       ¶:-\s*module\b
m         limbo         ¶\w+\s*:\s*module\s*\{
m         muf           \n: \S
m         mathematica   \n\w+\[\w+_
m         mathematica   ¶(?:\(\*|(?:BeginPackage|Needs|Get)\[)
m         m             \A\s*;|\A\s*\w+(?:\([\w,]*\))?\s+;|\n[ \t]+;
m         matlab        ¶(?:%|function\b|classdef\b|\.\.\.)
m         objective-c   ¶#\s*(?:include|define|ifdef|ifndef|pragma)\b
m         matlab        ;\s*\n
m         matlab        ¶(?:(?:end|clear|close|clc|hold|figure)\b|\w+\s*=\s*\[)
ts        xml           <TS\b
ts        typescript    .
tsx mm typ  xml           \A\s*<(?:\?xml|map)\b
pl pm t   raku          ¶(?:use\s+v6\b|unit\s+(?:class|module|role|grammar)\b)
pl pm t   raku          ¶(?:my\s+)?(?:class|grammar|role)\s+\w[^\n;]*\{
pl        perl          \A\n#!.*\bperl
pl pm t   perl          ¶(?:use|no|require)\s+(?:strict|warnings|lib|utf8|v?5[.\d]*|[A-Za-z]\w*(?:::\w+)*)\b
pl pm t   perl          ¶(?:package\s+[\w:]+\s*[;{]|(?:my|our|local)\s*[$@%(]|sub\s+\w+|=(?:head1|pod|encoding)\b)
pl        prolog        \n[a-z]\w*(?:\([^\n%]*\))?\s*:-|\n[a-z]\w*\([^\n]*\)\.\s*(?:%|\n)
pl        prolog        ¶:-\s*\w
pl pm     raku          \bsay\s
pl pm     raku          ¶(?:(?:multi|proto)\s+(?:sub|method)\b|(?:module|method)\s+\w)
pl        perl          .
pm        xpm           /\* XPM \*/
t         turing        \n%\s
t         turing        ¶(?:var|const)\s+\w+\s*:
t         other         .
plt       prolog        ¶:-
v         coq           \b(?:Proof|Qed|Defined|Admitted)\.
v         coq           ¶(?:From\s+\w+\s+)?Require\s+(?:Import|Export)\b
v         verilog       ¶(?:endmodule\b|module\s+\w+\s*(?:#|\(|;)|always\s*@|initial\s+begin\b|assign\s)
v         verilog       ¶`(?:define|ifdef|ifndef|include|timescale|default_nettype)\b
v         v             ¶(?:(?:pub\s+)?fn\s|module\s+\w+\s*\n|import\s+\w|struct\s+\w+\s*\{)
vsh       v             \A\n#!.*\bv\b
vsh       v             ¶import\s+\w
vsh       glsl          .
inc i s asm  m68k          (?i)¶(?:\w+:\s*)?(?:move[mpq]?\.[bwl]|moveq|dbra|lea\.l|movem)\s[^\n]*\b[ad][0-7]\b
inc       pov-ray       ¶#\s*(?:declare|local|macro|while)\s
inc       sourcepawn    ¶(?:native|forward|stock|methodmap|enum\s+struct)\s+\w
inc       nasl          ¶(?:(?:local|global)_var\s|include\("[\w.]+"\);)
inc       pascal        (?i)¶(?:\{\$\w+|end[.;]\s*\n|(?:function|procedure)\s+\w+[^\n{]*;)
inc       bitbake       \n(?:inherit\s|require\s|SRC_URI\b|[A-Z_]+\s*[?:+]?=\s*")
inc       asm           (?i)¶(?:\w+:\s*)?(?:mov\w*|push|call|equ|%define|%macro|db|dw|jmp|lea)\s+[^\n(;=]*\n
inc       html          (?i)¶<(?:!--|/?(?:div|table|tr|td|p|a|script|ul|li|html|body)\b)
inc       c             ¶(?:#\s*(?:include|define|ifn?def|if)\b|/\*|//|(?:static|extern|int|void|char|struct)\s)
cls       tex           \\(?:NeedsTeXFormat|ProvidesClass|ProvidesPackage|LoadClass)\b
cls       vb            (?i)¶(?:VERSION\s+\d\.\d\s+CLASS|Attribute\s+VB_Name)
cls       objectscript  \nClass\s+[%\w.]+\s*(?:Extends|\[|\{|\n)
cls       openedge-abl  (?i)¶(?:(?:class|interface)\s+[\w.]+[^{\n]*:\s*\n|using\s+[\w.*]+\.\s*\n|end\s+class\.)
r         rebol         (?i)¶rebol\s*\[
r         rez           "(?:Types|Carbon)\.r"
r         rez           ¶(?:resource|data|type)\s+'\S{4}'
rpy       python        \n(?:import|from|class|def)\s
rpy       renpy         .
fs        forth         \n: \S|\nnew-device
fs        f#            ¶(?:#light|open|module|namespace|let|type)\b
fs gs     glsl          ¶(?:#version\b|precision\s+\w+p\s|(?:uniform|varying|attribute|vec[234])\s+\w)
fs        filterscript  __attribute__
fs        filterscript  ¶#(?:include|pragma)\b
gs        genie         ¶\[indent\s*=
gs        gosu          \bconstruct\s*\(
gs        gosu          ¶(?:uses\s+[\w.]+|(?:package|enhancement)\s+[\w.]+\s*\n)
gs        javascript    ¶(?:function\s+\w+\s*\(|(?:var|let|const)\s+\w)
gs        other         .
md        gcc-machine-description  \A\s*;;|\n\(define_(?:insn|expand|attr|predicate)
d         makefile      \A\s*[^\s:]+\s*:\s[^\n;{]*\\\n|\A\s*[^\s:]+\.(?:o|lo|obj|d|rlib|rmeta)\s*:
d         dtrace        \A\n#!.*dtrace|\n\w*:\w*:\w*:\w*
d         dtrace        ¶(?:#pragma\s+D\s|provider\s+\w+\s*\{|BEGIN\s*\n)
e         eiffel        ¶(?:feature|inherit|deferred\s+class|note|indexing|class\s+[A-Z_]+)\b\s*(?:\{|\n|--|[A-Z])
ex e      euphoria      ¶(?:public\s+|global\s+|export\s+)?(?:include\s+\S+\.e\b|procedure\s|constant\s|atom\s)
e         e             ¶(?:(?:def|var)\s+\w+[^\n]*:=|to\s+\w+\(|def\s+\w+\([^)\n]*\))
e         other         .
f for     forth         \n: \S
f         filebench-wml  \bflowop\b
l         common-lisp   (?i)¶\((?:defun|defmacro|defvar|defparameter|in-package|defpackage|defclass|eval-when)\b
l         lex           \n%[%{}]|\n%(?:option|x|s)\b
l n ms me nr  roff          \n[.'](?:[A-Za-z]{1,2}|\\")(?:\s|$)
l         picolisp      \n\((?:de|class|rel|load|setq|must)\s
lisp lsp  newlisp       \n\(define\s|\A\n#!.*newlisp
ml        ocaml         \bmatch\b[^\n]*\bwith\b
ml        ocaml         ¶(?:let\s+rec\b|let\s+\w+\s|open\s+[A-Z]\w*\s*(?:;;)?\n|module\s+[A-Z]\w*\s*=)
ml        standard-ml   \bcase\b[^\n]*\bof\b
ml        standard-ml   ¶(?:structure|signature|functor|fun|datatype)\s
mod       xml           <!(?:ENTITY|ELEMENT)
mod       modula-2      ¶(?:DEFINITION\s+|IMPLEMENTATION\s+)?MODULE\s+\w+
mod       nmodl         ¶(?:NEURON|UNITS|PARAMETER|BREAKPOINT|INITIAL)\s*\{
mod       ampl          ¶(?:param|var|set|minimize|maximize|subject\s+to)\s
mod       other         .
n         nemerle       ¶(?:using|module|namespace)\s
n ms nr   other         .
me        text          .
php hh    hack          \A\s*<\?hh
pp        pascal        (?i)¶(?:(?:unit|program|library)\s+\w+\s*;|end[.;])
pro       qmake         ¶(?:TEMPLATE|SOURCES|HEADERS|QT|CONFIG|TARGET)\s*[+*-]?=
pro       proguard      ¶-(?:keep\w*|dontwarn|include|optimization\w*)\b
pro       idl           (?i)¶(?:(?:pro|function)\s+\w[\w, =:]*\n|compile_opt\b)
pro       prolog        \n[a-z]\w*(?:\([^\n%]*\))?\s*:-
pro       prolog        ¶:-
pro       ini           ¶\w+=
rs mojo   xml           \A\s*<\?xml
rs        renderscript  ¶#pragma\s+(?:version|rs)\b
i         swig          ¶%(?:[a-z]\w*|[{}])
i         asm           .
sc        supercollider  \^(?:this|super)\.
sc        supercollider  ¶(?:~\w+\s*=|(?:\+\s*)?[A-Z]\w*\s*(?::\s*\w+\s*)?\{\s*\n[ \t]*(?:var|classvar|\*))
scd       markdown      \n#+\s+(?:NAME|SYNOPSIS|DESCRIPTION)
st        stringtemplate  \$\w+[($;]|<\w+:\{|\$if\(|<!|\{!
cl        cool          ¶class\s+\w+\s+(?:inherits\b|\{)
cl        common-lisp   (?i)¶\((?:defun|defmacro|defvar|defparameter|in-package|defpackage|defclass|eval-when)\b
cl        opencl        \b(?:__)?kernel\s+void\b|__global\b|/\*|\n//|\n\}
cl        opencl        ¶#\s*\w+
cs        smalltalk     ![\w\s]{1,80}methodsFor:\s
b         brainfuck     [><+\-.,\[\]]{8}
b         limbo         ¶(?:implement\s+\w+\s*;|\w+\s*:\s*module\s*\{)
b         b             ¶(?:extrn|goto)\b
b         other         .
bf        hyphy         \bfprintf\s*\(
bf        hyphy         ¶#include\s+"
bf        beef          ¶using\s+[\w.]+\s*;
bf        brainfuck     [><+\-.,\[\]]{8}
bf        other         .
bas       b4x           \nB4[JARi]=true
bas       basic         (?i)\A\s*\d+\s
bas       basic         (?i)¶(?:#(?:define|include|lang|macro|pragma|ifdef)\b|CLS\b|PRINT\s+")
bas frm   vb            (?i)¶(?:VERSION\s+\d|Attribute\s+VB_Name|Option\s+(?:Explicit|Compare))
bas frm   vb            (?i)¶(?:Private|Public)\s+(?:Sub|Function)
frm       other         .
g gd      gap           ¶(?:Declare\w+|BindGlobal|InstallMethod|InstallGlobalFunction|SetPackageInfo)\s*\(
g         g-code        \n[GM]\d+(?:\s|$)
g         other         .
re        c++           ¶(?:#\s*(?:include|if|ifdef|define|pragma)\b|template\s*<)
res       rescript      ¶(?:let|module|type|open|external)\s+\w
res       other         .
scm       tree-sitter-query  \)\s*@[\w.]+|\(#(?:set|match|eq|any-of|is|offset|not-\w+)[!?]|\]\s*@[\w.]+
sol       gerber        \n[DGMT]\d\d\*
tm        tcl           ¶(?:proc|namespace|package)\s
tm        other         .
mo        motoko        ¶(?:actor|import\s+\w+\s+"|public\s+(?:shared\s+)?(?:func|query))
mo        modelica      ¶(?:partial\s+)?(?:model|package|class|block|within|connector|function)\b
mo        other         .
star      star          \nloop_\s*\n
tpl tmpl  gotmpl        \{\{-?\s*(?:if|range|with|end|define|template|include|block|\.|/\*|\$)
tpl       smarty        \{\*|\{/?(?:if|foreach|section|include|\$)
tpl tmpl  other         .
trigger   shell         \A\n#!
vba       vim           \AUseVimball
vba       vim           ¶" Vimball
yy        json          \A\s*[{\[]
fun       standard-ml   ¶(?:functor|structure|fun|val)\s
fun       other         .
1 2 3 4 5 6 7 8 9 man mdoc  roff          \n[.'](?:[A-Za-z]{1,2}|\\")(?:\s|$)
1 2 3 4 5 6 7 8 9 man mdoc  other         .
properties  ini           ¶[;\[]
plist     xml           \A\s*<
"""


# Within a row, blanks never reach over a line end, and an open class gives up after 200 characters: both would
# otherwise read the same stretch once from each of its lines or words.
_SIGNS = {r"\A\s*": "§", r"\s*": r"[ \t]*", r"\s+": r"[ \t]+", "§": r"\A\s*"}
_OPEN_CLASS = re.compile(r"(\[\^[^]]*\\n[^]]*\])\*")


def _compile(rows: list[str]) -> re.Pattern[str]:
    """One pattern for the rows of one language; those at the start of a line share the search for line ends."""
    for sign, meaning in _SIGNS.items():
        rows = [row.replace(sign, meaning) for row in rows]
    rows = [_OPEN_CLASS.sub(r"\1{0,200}", row) for row in rows]
    starts = [row.removeprefix("¶") for row in rows if row.startswith("¶")]
    others = [row.replace("¶", r"\n[ \t]*") for row in rows if not row.startswith("¶")]
    if starts:
        others.append(rf"\n[ \t]*(?:{'|'.join(starts)})")
    return re.compile("|".join(others))


def _rules() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    written: dict[str, list[tuple[str, list[str]]]] = {}
    for row in _TABLE.strip().splitlines():
        extensions, language, pattern = re.split(r" {2,}", row, maxsplit=2)
        for extension in extensions.split():
            rows = written.setdefault(extension, [])
            alone = "(?i)" in pattern
            if rows and rows[-1][0] == language and not alone and "(?i)" not in rows[-1][1][0]:
                rows[-1][1].append(pattern)
            else:
                rows.append((language, [pattern]))
    return {
        extension: [(language, _compile(patterns)) for language, patterns in rows]
        for extension, rows in written.items()
    }


RULES = _rules()
"""Extension → (language, pattern) in the order in which they are tried, on a text with a line end before it."""
