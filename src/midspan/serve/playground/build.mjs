// npm ci && npm run build: page/ becomes dist/, which the server hands out as it is.
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";

await mkdir("dist", { recursive: true });
await build({
  entryPoints: ["page/main.js"],
  outfile: "dist/main.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "eof",
});
for (const name of ["index.html", "style.css"]) await copyFile(`page/${name}`, `dist/${name}`);
