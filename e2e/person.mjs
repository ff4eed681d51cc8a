// A person in front of the page: finds controls by role and name, reads what is to be read, and chooses files in the file chooser.

import { startBrowser, tempDir, until } from "./harness.mjs";
import { sharedBrowser } from "./shared.mjs";

/** @param {import("node:test").TestContext} t @param {NonNullable<Parameters<typeof startBrowser>[1]>} options */
async function ownPage(t, options) {
  const { browser, downloads, profile } = await startBrowser(t, options);
  const [page] = await browser.pages();
  return { page, downloads, profile };
}

/** @param {import("node:test").TestContext} t @param {string[]} [args] */
async function sharedPage(t, args) {
  const downloads = tempDir(t);
  const browser = await sharedBrowser(t, args);
  const context = await browser.createBrowserContext({ downloadBehavior: { policy: "allow", downloadPath: downloads } });
  return { page: await context.newPage(), downloads, profile: "" };
}

export class Person {
  /** @param {import("puppeteer-core").Page} page @param {string} downloads @param {string} [profile] the browser's folder */
  constructor(page, downloads, profile = "") {
    this.page = page;
    this.downloads = downloads;
    this.profile = profile;
    /** Errors that the page did not catch. @type {string[]} */
    this.errors = [];
    page.setDefaultTimeout(120_000);
    page.on("pageerror", (error) => this.errors.push(String(error)));
    // A page that still transfers asks before it is left.
    page.on("dialog", (dialog) => dialog.accept());
  }

  /**
   * Somebody with a profile of their own, in the Chromium that all share.
   * @param {import("node:test").TestContext} t
   * @param {{ alone?: boolean, kind?: "chromium" | "firefox", args?: string[], executable?: string, throttled?: boolean, profile?: string, name?: string, before?: (() => void) | (() => void)[] }} [options]
   *   alone: with a browser of their own, whose profile is on disk, as Firefoxes and those of an executable or a former profile always have;
   *   before runs in the page before its scripts; the rest is startBrowser's
   */
  static async arrive(t, { alone = false, kind = "chromium", args, executable, throttled, profile: former, name, before = [] } = {}) {
    const own = alone || kind === "firefox" || executable || throttled || former;
    const { page, downloads, profile } = own ? await ownPage(t, { kind, args, executable, throttled, profile: former }) : await sharedPage(t, args);
    for (const fn of [before].flat()) await page.evaluateOnNewDocument(fn);
    if (name) {
      await page.evaluateOnNewDocument((given) => {
        if (location.protocol.startsWith("http")) localStorage.setItem("tallow.name", given);
      }, name);
    }
    return new Person(page, downloads, profile);
  }

  /** @param {string} url */
  async open(url) {
    await this.page.goto(url, { waitUntil: "load" });
  }

  /** The control with that role and name, visible. @param {string} role @param {string} name */
  async control(role, name) {
    const selector = `::-p-aria([name="${name}"][role="${role}"])`;
    const handle = await this.page.waitForSelector(selector, { visible: true });
    if (!handle) throw new Error(`no ${role} "${name}"`);
    return handle;
  }

  /** Presses a button once it can be pressed. Where it moves while the mouse is on its way, or another takes its place, once more. @param {string} name */
  async press(name) {
    await until(`button "${name}" is pressed`, async () => {
      const button = await this.control("button", name);
      try {
        if (!(await button.evaluate((b) => b instanceof HTMLButtonElement && !b.disabled))) return false;
        const seen = await button.evaluateHandle((b) => {
          const seen = { clicks: 0 };
          b.addEventListener("click", () => seen.clicks++, { once: true });
          return seen;
        });
        await button.click();
        return await seen.evaluate(({ clicks }) => clicks > 0).catch(() => true); // it has led to another page
      } catch {
        return false; // it is there no longer
      }
    }, 120_000);
  }

  /** @param {string} label @param {string} text */
  async type(label, text) {
    const field = await this.control("textbox", label);
    await field.click();
    await this.page.keyboard.type(text);
  }

  /** Everything that can be read on the page. */
  async text() {
    try {
      return await this.page.evaluate(() => document.body?.innerText ?? "");
    } catch (error) {
      if (/context was destroyed|detached/.test(String(error))) return ""; // between two pages
      throw error;
    }
  }

  /** Waits until the page says that. @param {RegExp} pattern @param {number} [timeout] in ms */
  async sees(pattern, timeout) {
    await this.reads(String(pattern), (text) => pattern.test(text), timeout);
  }

  /**
   * Waits until what can be read on the page is right, or says what it was.
   * @param {string} what
   * @param {(text: string) => boolean} right
   * @param {number} [timeout] in ms
   */
  async reads(what, right, timeout) {
    let text = "";
    try {
      await until(what, async () => right((text = await this.text())), timeout);
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : error}; the page says:\n${text}\nerrors: ${this.errors.join("; ")}`);
    }
  }

  /** The link to the room, once it is there. */
  async link() {
    const field = await this.control("textbox", "Send this link to whom you want here. It is the key to the room.");
    return until("a link to the room", () => field.evaluate((input) => /** @type {HTMLInputElement} */ (input).value));
  }

  /** Waits until that many others are connected. @param {number} n */
  async meets(n) {
    await this.reads(`${n} connected`, (text) => (text.match(/Connected · /g) ?? []).length === n, 120_000);
  }

  /** @param {...string} files */
  async choose(...files) {
    const button = await this.control("button", "Choose files");
    const [chooser] = await Promise.all([this.page.waitForFileChooser(), button.click()]);
    await chooser.accept(files);
  }

  /** Drops a file or folder, anywhere on the page. @param {string} file */
  async drop(file) {
    const cdp = await this.page.createCDPSession();
    for (const type of /** @type {const} */ (["dragEnter", "dragOver", "drop"]))
      await cdp.send("Input.dispatchDragEvent", { type, x: 9, y: 9, data: { items: [], files: [file], dragOperationsMask: 1 } });
    await cdp.detach();
  }

  /** Limits the newest transfer. @param {string} limit in MB/s; "": no longer */
  async limit(limit) {
    const field = await this.page.waitForSelector("article.transfer .limit:not([hidden]) input", { visible: true });
    if (!field) throw new Error("no limit");
    await field.click({ count: 3 });
    await this.page.keyboard.press("Backspace");
    await this.page.keyboard.type(limit);
    await this.page.keyboard.press("Tab");
  }

  /** The newest transfer: a list of the others with the state in words. @returns {Promise<Record<string, string>>} */
  deliveries() {
    return this.page.evaluate(() => {
      const card = document.querySelector("article.transfer");
      const rows = [...(card?.querySelectorAll(".deliveries > li") ?? [])];
      return Object.fromEntries(rows.map((row) => [row.querySelector(".who")?.textContent ?? "", row.querySelector(".note")?.textContent ?? ""]));
    });
  }

  /** Waits until the newest transfer shows that state for someone. @param {string} name @param {RegExp} state @param {number} [timeout] in ms */
  async seesDelivery(name, state, timeout = 120_000) {
    let last;
    try {
      await until("", async () => state.test((last = (await this.deliveries())[name]) ?? ""), timeout);
    } catch {
      throw new Error(`${name} is "${last}", not ${state}; the page says:\n${await this.text()}`);
    }
  }

  /**
   * Notes every state that the newest transfer shows from now on.
   * @returns {Promise<() => Promise<string[]>>} the states seen, as "name: state"
   */
  async watchStates() {
    await this.page.evaluate(() => {
      const seen = new Set();
      const look = () => {
        for (const row of document.querySelectorAll(".deliveries > li")) seen.add(`${row.querySelector(".who")?.textContent}: ${row.getAttribute("data-state")}`);
      };
      new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
      Object.assign(window, { seenStates: seen });
    });
    return () => this.page.evaluate(() => [.../** @type {any} */ (window).seenStates]);
  }
}
