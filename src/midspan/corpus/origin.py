"""Where a file comes from: written here, brought from elsewhere (vendored), or made by a program (generated).

    name ── vendored? ── generated, by its name? ──┐   these two need no text: such a file is not read at all
                                                   └── text ── generated, by its content? ── written here

Both are linguist's questions (`vendor.yml`, `generated.rb`; go-enry's `is_vendor` and `is_generated`, which
the Stack v2 and StarCoder 2 asked), answered from the compact lists below.

Ours says vendored more often for Python's and C++'s ways (`_vendor`, `site-packages`, virtual environments,
`vcpkg_installed`), and does not say it of what people write by hand, although linguist leaves it out of its
statistics: `cache/`, `env/`, `.github/`, `.vscode/`, `*.d.ts`, `Jenkinsfile`, `Vagrantfile`, `fabfile.py`,
`.gitignore` and their kin, and scripts called `effects.js`, `controls.js` or `dragdrop.js`. Ours says generated
of every text whose first lines sign it so ("generated … do not edit", `@generated`, Bison, flex, Qt, SWIG,
ANTLR …), where linguist asks for the signature of one tool in one language.

Left out on purpose: PostScript and 3D formats, which no code model is trained on.
"""

import re
from collections.abc import Callable

from midspan.corpus.document import Reason
from midspan.corpus.language import extension_of

Problem = tuple[Reason, str]

# ----------------------------------------------------------------------------------------- vendored


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VENDOR_FOLDERS = _set(
    """
    _vendor 3rd-party 3rd_party 3rdparty third-party third_party thirdparty vendor vendors extern external
    externals node_modules bower_components jspm_packages xvba_modules site-packages dist-packages __pypackages__
    .eggs .tox .nox vcpkg_installed dist testdata admin_media bootstrap-datepicker ace-builds mathjax extjs pods
    carthage sparkle crashlytics.framework fabric.framework buddybuildsdk.framework puphpet .google_apis
    """
)
"""Folders anywhere above a file, in lower case."""

_VENDOR_ROOTS = frozenset({"dependencies", "deps", "debian"})
"""Folders at the top of a repository."""

_VENDOR_FILES = _set(
    """
    configure config.guess config.sub aclocal.m4 libtool.m4 ltoptions.m4 ltsugar.m4 ltversion.m4 lt~obsolete.m4
    dotnet-install.ps1 dotnet-install.sh cpplint.py erlang.mk waf run.n gradlew gradlew.bat mvnw mvnw.cmd
    _esy activator activator.bat proguard.pro proguard-rules.pro .ds_store octicons.css sprockets-octicons.scss
    """
)

_VENDOR_PATH = re.compile(
    r"""
    (?:^|/)\.yarn/(?:releases|plugins|sdks|versions|unplugged)/
    | (?:^|/)godeps/_workspace/
    | (?:^|/)(?:\.?v?env|virtualenv)/(?:lib|lib64|bin|scripts|include|share)/
    | (?:^|/)docs?/_?(?:build|themes?|templates?|static)/
    | (?:^|/)(?:tests?|specs?)/fixtures/
    | (?:^|/)(?:gradle|\.mvn)/wrapper/
    | (?:^|/)packages/.+\.\d+/
    | (?:^|/)inst/extdata/
    | (?:^|/)tiny_mce/(?:langs|plugins|themes|utils)
    | (?:^|/)codemirror/(?:\d+\.\d+/)?(?:lib|mode|theme|addon|keymap|demo)
    | (?:^|/)flow-typed/.*\.js$
    | (?:^|/)(?:font-?awesome|bourbon)/.*\.(?:css|less|scss|styl)$
    | (?:^|/)bootstrap[.-][^/]*/.*\.(?:css|js|less|scss|styl)$
    | (?:^|/)select2/.*\.(?:css|scss|js)$
    | \.(?:xctemplate|imageset)/
    | realm\.framework
    """,
    re.VERBOSE,
)

_STYLE = r"\.(?:css|less|sass|scss|styl)"
_VENDOR_SCRIPT = re.compile(
    rf"""
    .*[.-]min\.(?:js|css)
    | .*(?:-vsdoc|\.intellisense)\.js
    | (?:custom\.)?bootstrap[^/.]*(?:\..*)?(?:\.js|{_STYLE})
    | foundation(?:\..*)?(?:\.js|{_STYLE})
    | (?:font-?awesome|normalize|skeleton|animate|materialize|bulma){_STYLE} | materialize\.js
    | .*import\.(?:css|less|scss|styl)
    | jquery[^.]*\.js
    | jquery-\d+\.\d+(?:\.\d+)?\.js
    | jquery-ui(?:-\d+\.\d+(?:\.\d+)?)?(?:\.\w+)?\.(?:js|css)
    | jquery\.(?:ui|effects)\.[^.]*\.(?:js|css)
    | jquery\.(?:fn\.gantt|fancybox|fileupload(?:-\w+)?|datatables|validate|unobtrusive-ajax)\S*\.(?:js|css)
    | jquery[^.]*\.(?:validate(?:\.unobtrusive)?|unobtrusive-ajax)\.js
    | (?:bootbox|fuelux|dojo|mochikit|ckeditor|html5shiv|slick\.\w+|pdf\.worker|shcore|shlegacy)\.js
    | (?:prototype.*|(?:yahoo-|yui|tiny_mce|shbrush|angular|cordova)[^.]*|react(?:-[^.]*)?)\.js
    | cordova-\d\.\d(?:\.\d)?\.js
    | d3(?:\.v\d+)?[^.]*\.js
    | mootools[^.]*\d+\.\d+.\d+[^.]*\.js
    | modernizr(?:-\d\.\d+(?:\.\d+)?|\.custom\.\d+)\.js
    | knockout-(?:\d+\.){{3}}(?:debug\.)?js
    | microsoft(?:mvc)?(?:ajax|validation)(?:\.debug)?\.js
    | fontello.*\.css
    | (?:leaflet\.(?:draw|draw-src|spin|coordinates-[\d.]+\.src)|wicket-leaflet|control\.fullscreen)\.(?:js|css)
    """,
    re.VERBOSE,
)
_SCRIPT_EXTENSIONS = frozenset({"js", "css", "less", "sass", "scss", "styl"})


def vendored_by(path: str) -> str | None:
    """What in a path (with `/`, relative to its repository) says that the file was brought from elsewhere.

    After linguist's `vendor.yml`; the module says where it differs. None for a file of the repository's own.
    """
    lower = path.lower()
    *folders, name = lower.split("/")
    for folder in folders:
        if folder in _VENDOR_FOLDERS:
            return f"folder {folder}"
    if folders and folders[0] in _VENDOR_ROOTS:
        return f"folder {folders[0]}"
    if name in _VENDOR_FILES or (name == "rebar" and not folders):
        return f"file {name}"
    if folders:
        found = _VENDOR_PATH.search(lower)
        if found is not None:
            return f"path {found[0].strip('/')}"
    if extension_of(name) in _SCRIPT_EXTENSIONS and _VENDOR_SCRIPT.fullmatch(name):
        return f"file {name}"
    return None


# ---------------------------------------------------------------------------------------- generated

_GENERATED_FILES = _set(
    """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock composer.lock
    cargo.lock cargo.toml.orig gemfile.lock pipfile.lock poetry.lock pdm.lock uv.lock pixi.lock conda-lock.yml
    flake.lock mix.lock rebar.lock pubspec.lock podfile.lock package.resolved packages.lock.json paket.lock go.sum
    gopkg.lock glide.lock module.bazel.lock mise.lock .terraform.lock.hcl .secrets.baseline esy.lock parsetab.py
    lextab.py yacctab.py
    """
)
_GENERATED_FOLDERS = frozenset({".idea", "__generated__", "godeps", "htmlcov"})
_GENERATED_ENDINGS = (
    *("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", "_pb.js", "_pb.d.ts", "_grpc_pb.js"),
    *(".pb.go", ".pb.gw.go", ".pb.validate.go", ".pb.cc", ".pb.h", ".pb.swift", ".pbobjc.h", ".pbobjc.m"),
    *(".designer.cs", ".designer.vb", ".feature.cs", ".g.cs", ".g.i.cs", ".g.dart", ".freezed.dart"),
    *(".nib", ".xcworkspacedata", ".xcuserstate", ".js.map", ".css.map", "_tlb.pas"),
    *(".zep.c", ".zep.h", ".zep.php"),
)
_GENERATED_PATH = re.compile(
    r"(?:^|/)carthage/build/|(?:^|/)\.pnp\.[^/]*$|(?:^|/)(?:julia)?manifest(?:-v\d+\.\d+)?\.toml$|"
    r"(?:^|/)mise\.[^/]+\.lock$|(?:^|/)\w+\.esy\.lock$|(?:^|/)\.sqlx/query-[a-f\d]{64}\.json$|"
    r"(?:^|/)zz_generated\.[^/]*$|(?:^|/)sorbet/rbi/(?:gems|dsl|annotations)/"
)


def generated_by_name(path: str) -> str | None:
    """What in a path says that a program wrote the file: a lock file, a protocol buffer's module, a cache."""
    lower = path.lower()
    *folders, name = lower.split("/")
    if name in _GENERATED_FILES:
        return f"file {name}"
    for folder in folders:
        if folder in _GENERATED_FOLDERS:
            return f"folder {folder}"
    if name.endswith(_GENERATED_ENDINGS):
        return f"file {name}"
    found = _GENERATED_PATH.search(lower)
    return f"path {found[0].strip('/')}" if found else None


HEAD_LINES = 40
"""First lines in which a program may sign; go-enry looks for `Code generated` there."""
HEAD_CHARACTERS = 8000
MAX_MINIFIED_MEAN = 110
"""Characters per line above which linguist takes a script or a style sheet for minified."""

_THRIFT = "rb py go js m java h cc cpp php"
_PROTOBUF = "py java h cc cpp m rb php"
_SIGNATURES = (
    ("js", 1, "// Generated by "),
    ("js", 5, "Generated by PEG.js"),
    ("js", 1, "/* parser generated by jison "),
    ("js", 1, "/* generated by jison-lex "),
    ("js", 6, "GENERATED CODE -- DO NOT EDIT!"),
    ("go", 40, "// Code generated "),
    ("proto", 20, "This file was autogenerated by go-to-protobuf"),
    (_PROTOBUF, 3, "Generated by the protocol buffer compiler.  DO NOT EDIT!"),
    ("ts", 1, "Code generated by protoc-gen-ts_proto. DO NOT EDIT."),
    (_THRIFT, 6, "Autogenerated by Thrift Compiler"),
    ("h", 1, "/* DO NOT EDIT THIS FILE - it is machine generated */"),
    ("c cc cpp cxx h", 1, "Generated by Cython"),
    ("c cc cpp cxx h py pas", 6, "created by SWIG"),
    ("c cc cpp cxx h py java cs go lua rb", 6, "automatically generated by SWIG"),
    ("c cc cpp cxx h hh hpp y", 3, "A Bison parser, made by GNU Bison"),
    ("c cc cpp cxx h", 30, "A lexical scanner generated by flex"),
    ("c cc cpp cxx moc", 3, "Meta object code from reading C++ file"),
    ("h py", 6, "generated from reading ui file"),
    ("h py", 6, "Form generated from reading UI file"),
    ("cpp py", 6, "Resource object code"),
    ("java py js ts cs cpp h go php swift dart", 3, " by ANTLR "),
    ("mod", 1, "PCBNEW-LibModule-V"),
    ("mod", 1, "GFORTRAN module version '"),
    ("meta", 1, "fileFormatVersion: "),
    ("rb", 3, "# This file is automatically generated by Racc"),
    ("rb", 3, "Code generated by protoc-gen-twirp_ruby"),
    ("java", 1, "/* The following code was generated by JFlex "),
    ("java", 1, "// This is a generated file. Not intended for manual editing."),
    ("java", 2, "This file is generated by jOOQ."),
    ("rd", 1, "% Generated by roxygen2: do not edit by hand"),
    ("cpp hpp h cc", 1, "// Generated by the gRPC"),
    ("h", 9, "Automatically created by Devel::PPPort"),
    ("c h", 1, "/* GIMP "),
    ("c h", 1, "/*  GIMP header image file format "),
    ("dsp", 3, "# Microsoft Developer Studio Generated Build File"),
    ("js py lua cpp h java cs php", 3, "Generated by Haxe"),
    ("html htm xhtml", 2, "<!-- Generated by pkgdown: do not edit by hand -->"),
    ("html htm xhtml", 3, "<!-- This is an automatically generated file."),
    ("html htm xhtml", 31, "Generated by Doxygen"),
    ("frm", 1, "TYPE=VIEW"),
)
"""Extensions, first lines, and what a program writes there."""

_SIGNATURES_OF = {
    extension: [(lines, phrase) for extensions, lines, phrase in _SIGNATURES if extension in extensions.split()]
    for extension in {extension for extensions, _, _ in _SIGNATURES for extension in extensions.split()}
}

_COMMENT = re.compile(r"[ \t]*(?:[#/*;%<!'\"(-]|\.\.|rem\b|dnl\b)")
_DO_NOT_EDIT = re.compile(r"\b(?:do not|don't|never) (?:edit|modify|change|touch)\b")
_GENERATED = re.compile(r"\b(?:re)?generated\b")
_GENERATED_MARK = re.compile(r"[ \t/*#;<!\"'-]*@generated\b")
_SOURCE_MAP = re.compile(r"/[*/][#@] source(?:Mapping)?URL=")
_DOCUMENT_TOOLS = re.compile(
    r"<meta\s[^>]{0,200}?\bname\s*=\s*[\"']?generator\b[^>]{0,200}?=\s*[\"']?"
    r"(org\s+mode|j?latex2html|groff|makeinfo|texi2html|ronn|sphinx|doxygen|javadoc|pdoc)\b",
    re.IGNORECASE,
)


def generated_by_content(path: str, text: str) -> str | None:
    """What in a text says that a program wrote it: a signature in its first lines, or the form of the whole.

    After linguist's `generated.rb`, and for any language a comment in the first `HEAD_LINES` lines that says
    both "generated" and "do not edit", in one line or in two that follow each other.
    """
    extension = extension_of(path)
    head = text[:HEAD_CHARACTERS]
    lines = head.split("\n", HEAD_LINES)[:HEAD_LINES]
    for count, phrase in _SIGNATURES_OF.get(extension, ()):
        if phrase in head and any(phrase in line for line in lines[:count]):
            return f"{phrase.strip()!r} in the first {'line' if count == 1 else f'{count} lines'}"
    lower = head.lower()
    if "generated" in lower:
        signed = _signed(lower.split("\n", HEAD_LINES)[:HEAD_LINES])
        if signed is not None:
            return signed
    form = _FORMS.get(extension)
    return form(text, lines) if form is not None else None


def _signed(lines: list[str]) -> str | None:
    for index, line in enumerate(lines):
        if not _COMMENT.match(line):
            continue
        if index < 10 and _GENERATED_MARK.match(line):
            return "'@generated' in the first 10 lines"
        if _DO_NOT_EDIT.search(line) and any(map(_GENERATED.search, lines[max(index - 1, 0) : index + 2])):
            return f"'generated, do not edit' in the first {HEAD_LINES} lines"
    return None


def _script(text: str, lines: list[str]) -> str | None:
    """JavaScript and CSS: minified, or made from a source that a map names in one of the last two lines."""
    ends = text.count("\n")
    mean = (len(text) - ends) // (ends + 1)
    if mean > MAX_MINIFIED_MEAN:
        return f"minified, mean line length {mean} > {MAX_MINIFIED_MEAN}"
    if any(map(_SOURCE_MAP.match, text.rsplit("\n", 2)[-2:])):
        return "a source map's address in the last two lines"
    return None


def _javascript(text: str, lines: list[str]) -> str | None:
    """What CoffeeScript before 1.3 wrote has no signature, but its closure and its own variables."""
    if lines[0] == "(function() {" and text.endswith("\n}).call(this);\n"):
        declared = "\n".join(line for line in text.split("\n") if "var " in line)
        score = sum(declared.count(name) for name in ("_fn", "_i", "_len", "_ref", "_results"))
        score += 3 * sum(
            declared.count(name) for name in ("__bind", "__extends", "__hasProp", "__indexOf", "__slice")
        )
        if score >= 3:
            return "compiled CoffeeScript"
    return _script(text, lines)


def _source_map(text: str, lines: list[str]) -> str | None:
    return "a source map" if text.startswith(('{"version":', "/** Begin line maps. **/{")) else None


def _page(text: str, lines: list[str]) -> str | None:
    found = _DOCUMENT_TOOLS.search("\n".join(lines[:31]))
    return f"a page written by {found[1].lower()}" if found else None


def _cassette(text: str, lines: list[str]) -> str | None:
    return "a VCR cassette" if any("recorded_with: VCR" in line for line in text.rsplit("\n", 2)[-2:]) else None


def _net_documentation(text: str, lines: list[str]) -> str | None:
    if len(lines) > 3 and "<doc>" in lines[1] and "<assembly>" in lines[2]:
        return "the documentation of a .NET assembly"
    return None


def _game_maker(text: str, lines: list[str]) -> str | None:
    return "a resource of GameMaker" if text.lstrip()[:1] in ("{", "[") else None


_FORMS: dict[str, Callable[[str, list[str]], str | None]] = {
    "js": _javascript,
    "css": _script,
    "map": _source_map,
    **dict.fromkeys(("html", "htm", "xhtml"), _page),
    "yml": _cassette,
    "xml": _net_documentation,
    **dict.fromkeys(("yy", "yyp"), _game_maker),
}


def origin_problem(path: str, text: str | None) -> Problem | None:
    """Why a file is not its repository's own work, or None.

    Args:
        path: relative to its repository, with `/`.
        text: decoded, with `\\n` line ends; None judges the name alone, before the file is read.
    """
    reason = vendored_by(path)
    if reason is not None:
        return Reason.VENDORED, reason
    reason = generated_by_name(path)
    if reason is None and text:
        reason = generated_by_content(path, text)
    return None if reason is None else (Reason.AUTOGENERATED, reason)
