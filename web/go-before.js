// @ts-check
// What the page has under the names that wasm_exec.js takes. This module runs right before it, and go.js right after.

const names = ["Go", "fs", "process", "path"];

/** @type {[string, PropertyDescriptor | undefined][]} */
const before = names.map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);

export function restore() {
  for (const [name, descriptor] of before) {
    if (descriptor) Object.defineProperty(globalThis, name, descriptor);
    else delete /** @type {any} */ (globalThis)[name];
  }
}
