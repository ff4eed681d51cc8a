// A Chromium that the tests of a file share, so that each does not pay for the start of its own. Every member, and every person, has a
// context in it: a profile apart, which ends with the test. Its files are kept in memory; who is to have a disk, or to be killed, needs a
// browser of their own.

import { after } from "node:test";
import { startBrowser } from "./harness.mjs";

/** By what they were started with. @type {Map<string, ReturnType<typeof startBrowser>>} */
const browsers = new Map();
/** @type {(() => unknown)[]} */
const cleanups = [];
after(async () => {
  for (const fn of cleanups) await fn();
});

/**
 * The contexts that are made in it from now on are closed when the test ends.
 * @param {import("node:test").TestContext} t @param {string[]} [args] what it is started with besides
 */
export async function sharedBrowser(t, args = []) {
  const key = args.join(" ");
  const scope = /** @type {any} */ ({ after: (/** @type {() => unknown} */ fn) => cleanups.push(fn) });
  const starting = browsers.get(key) ?? startBrowser(scope, { args });
  browsers.set(key, starting);
  const { browser } = await starting;
  const before = new Set(browser.browserContexts());
  t.after(async () => {
    for (const context of browser.browserContexts()) if (!before.has(context)) await context.close().catch(() => {}); // another test's end may have
  });
  return browser;
}
