// Prints what web/tallow.js exports, for TestDeclarations: classes with the names on their prototypes, and the messages.

import * as api from "../../web/tallow.js";

const classes = {};
for (const [name, value] of Object.entries(api)) {
  if (typeof value !== "function" || !/^class\b/.test(Function.prototype.toString.call(value))) continue;
  const instance = name === "TallowError" ? Object.getOwnPropertyNames(new value("internal")).filter((n) => n !== "stack") : [];
  classes[name] = {
    extends: Object.getPrototypeOf(value).name,
    members: [...Object.getOwnPropertyNames(value.prototype).filter((n) => n !== "constructor"), ...instance],
    constructible: (() => {
      try {
        return new value("internal") !== undefined;
      } catch (error) {
        return error.message !== "Illegal constructor"; // else it only wants other arguments
      }
    })(),
  };
}
const functions = Object.keys(api).filter((name) => typeof api[name] === "function" && !classes[name]);
console.log(JSON.stringify({ classes, functions, messages: api.messages }));
