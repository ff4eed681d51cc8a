// @ts-check
// Go's support for WebAssembly (wasm_exec.js) as a module: it takes the class that the script puts into the global object, and leaves
// there what was there before. The three modules run in one go, so nobody sees the globals in between.

import { restore } from "./go-before.js";
// @ts-ignore: a classic script of Go's, copied here by the build
import "./wasm_exec.js";

/** @type {any} */
export const Go = /** @type {any} */ (globalThis).Go;
restore();
