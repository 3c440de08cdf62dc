// `tsc --target esnext --module commonjs FILE`, from a snapshot: kits.py puts this behind TypeScript's own text and
// lets node run both once, `node --build-snapshot`. What is then alive (the compiler, the parsed and bound libraries)
// is what each later start begins with, a quarter of a second where tsc takes most of two.
//
// Libraries are not checked again for each program; errors in the program itself are tsc's, in its words.

(() => {
  const v8 = require("node:v8");
  const [outside, inside] = [process.env.MIDSPAN_LIBRARIES, process.env.MIDSPAN_LIBRARIES_INSIDE];
  const options = { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.CommonJS };
  const host = ts.createCompilerHost(options, true);
  const read = host.getSourceFile;
  const libraries = new Map();
  const warm = "/warm.ts";
  const warmText = "declare var require: any;\nconst a: number[] = [1];\nconsole.log(a.map((x) => `${x + 1}`));\n";

  host.getDefaultLibLocation = () => inside;
  host.getDefaultLibFileName = (asked) => `${inside}/${ts.getDefaultLibFileName(asked)}`;
  host.getSourceFile = (name, language, ...rest) => {
    if (name === warm) return ts.createSourceFile(name, warmText, language);
    if (!name.startsWith(inside)) return read(name, language, ...rest);
    if (!libraries.has(name)) libraries.set(name, read(name.replace(inside, outside), language, ...rest));
    return libraries.get(name);
  };

  function compile(name, write) {
    const program = ts.createProgram([name], options, host);
    const source = program.getSourceFile(name);
    let found = [...program.getSyntacticDiagnostics(source)];
    if (!found.length) found = [...program.getOptionsDiagnostics(), ...program.getGlobalDiagnostics()];
    if (!found.length) found = [...program.getSemanticDiagnostics(source)];
    return source ? [...found, ...program.emit(source, write).diagnostics] : found;
  }

  compile(warm, () => {});
  v8.startupSnapshot.setDeserializeMainFunction(() => {
    const here = process.cwd();
    host.getCurrentDirectory = () => here;
    const found = ts.sortAndDeduplicateDiagnostics(compile(process.argv[1]));
    const shown = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => here, getNewLine: () => "\n" };
    process.stdout.write(ts.formatDiagnostics(found, shown));
    process.exitCode = found.length ? 2 : 0;
  });
})();
