// The embedding guide's own pages and policy, as they stand there, on an origin of their own.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import test from "node:test";
import { expectFiles, startBrowser, startServer, tempDir, until, writeFile } from "./harness.mjs";
import { sharedBrowser } from "./shared.mjs";
import { readTree, unzip } from "./tree.mjs";

const file = (/** @type {string} */ name) => fs.readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
const guide = file("docs/embedding.md");

/** The code under a heading of the guide. @param {string} name */
function sample(name) {
  const match = new RegExp(`### ${name.replace(".", "\\.")}\n\n\`\`\`\\w+\n([^]*?)\`\`\``).exec(guide);
  assert.ok(match, `the guide has ${name}`);
  return match[1];
}

/** The guide's content security policy. */
function samplePolicy() {
  const match = / {4}Content-Security-Policy: ([^]*?)\n\n/.exec(guide);
  assert.ok(match, "the guide has a policy");
  return match[1].replace(/\s+/g, " ").trim();
}

/**
 * A web server with the guide's pages, and a Tallow server that allows them.
 * @param {import("node:test").TestContext} t
 */
async function shop(t) {
  const site = { origin: "", tallow: "", policy: samplePolicy() };
  const ours = (/** @type {string} */ text) => text.replaceAll("wss://tallow.example", site.tallow.replace(/^http/, "ws")).replaceAll("https://tallow.example", site.tallow);
  const web = http.createServer((request, response) => {
    const name = new URL(request.url ?? "/", "http://shop").pathname.slice(1);
    /** @type {Record<string, () => string>} */
    const pages = {
      "storage-worker.js": () => file("web/storage-worker.js"),
      "blank.html": () => "<!doctype html><title>Blank</title>",
    };
    const page = pages[name] ?? (/^(sender|receiver|facades)\.(html|js)$/.test(name) ? () => ours(sample(name)) : undefined);
    if (!page) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": name.endsWith(".js") ? "text/javascript" : "text/html", "content-security-policy": ours(site.policy) }).end(page());
  });
  await new Promise((resolve) => web.listen(0, "127.0.0.1", () => resolve(undefined)));
  t.after(() => web.close());
  // Secure, as https is, and another origin than the server's.
  site.origin = `http://localhost:${/** @type {import("node:net").AddressInfo} */ (web.address()).port}`;
  site.tallow = (await startServer(t, { args: ["-turn=false", "-allow-origin", site.origin] })).url;
  return site;
}

test("the guide's sender and receiver", { timeout: 240_000 }, async (t) => {
  const site = await shop(t);
  const folder = tempDir(t);
  const { browser, downloads } = await startBrowser(t);
  /** @type {string[]} */
  const errors = [];
  const open = async (/** @type {string} */ url) => {
    const page = await browser.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && !/favicon/.test(message.location().url ?? "") && errors.push(message.text()));
    await page.goto(url);
    return page;
  };
  const text = (/** @type {import("puppeteer-core").Page} */ page, /** @type {string} */ id) => page.$eval(`#${id}`, (e) => e.textContent ?? "");
  const press = async (/** @type {import("puppeteer-core").Page} */ page, /** @type {string} */ id) => {
    await page.bringToFront();
    await until(`#${id} can be pressed`, () => page.$eval(`#${id}`, (b) => b instanceof HTMLButtonElement && !b.disabled && !b.hidden));
    await page.click(`#${id}`);
  };

  const sender = await open(`${site.origin}/sender.html`);
  const link = await until("a link", () => sender.$eval("#link", (e) => /** @type {HTMLInputElement} */ (e).value));
  assert.ok(link.startsWith(`${site.origin}/receiver.html#v1.`), link);
  const receiver = await open(link);
  await until("Bob", async () => /Bob: open( \S+){4}/.test(await text(sender, "people")));

  const hello = await writeFile(folder, "hello.bin", (3 << 20) + 1);
  const input = /** @type {import("puppeteer-core").ElementHandle<HTMLInputElement>} */ (await sender.$("#files"));
  await input.uploadFile(hello.file);
  await press(sender, "send");
  await until("the offer", async () => (await text(receiver, "offer")) === "Ann offers hello.bin");
  await press(receiver, "accept");
  await until("saved", async () => (await text(receiver, "message")) === "Saved 1.");
  await until("the sender knows", async () => (await text(sender, "message")) === "1 of 1 have everything.");
  assert.equal(await text(sender, "deliveries"), "Bob: done, 100 %");
  await expectFiles(downloads, [hello]);

  await press(sender, "send");
  await press(receiver, "decline");
  await until("declined", async () => (await text(sender, "message")) === "0 of 1 have everything.");
  assert.equal(await receiver.$eval("#accept", (b) => /** @type {HTMLElement} */ (b).hidden), true);

  await receiver.reload();
  await until("back in the room", async () => (await text(receiver, "message")) === "In the room.");
  await until("the sender sees it", async () => /Bob: open/.test(await text(sender, "people")));

  // One of two files has gone: the receiver gets the other, and is told.
  const gone = await writeFile(folder, "gone.bin", 1000);
  const stays = await writeFile(folder, "stays.bin", 1000);
  await input.uploadFile(gone.file, stays.file);
  await input.evaluate((e) => [...(e.files ?? [])].map((f) => f.size)); // as a page that shows sizes has done
  fs.rmSync(gone.file);
  await press(sender, "send");
  await press(receiver, "accept");
  await until("told", async () => (await text(receiver, "message")) === "Saved 1, but not gone.bin.");
  await until("the sender knows", async () => (await text(sender, "message")) === "0 of 1 have everything.");
  await expectFiles(downloads, [hello, stays]);

  const more = await writeFile(folder, "more.bin", 1000);
  await input.uploadFile(more.file, stays.file);
  await press(sender, "send");
  await press(receiver, "accept");
  await until("saved", async () => (await text(receiver, "message")) === "Saved 2.");
  const zip = path.join(downloads, "files.zip");
  await until("a zip", () => fs.existsSync(zip));
  const found = readTree(unzip(t, zip));
  assert.deepEqual(Object.entries(found).map(([name, { sha256 }]) => [name, sha256]).sort(), [more, stays].map(({ name, sha256 }) => [name, sha256]).sort());
  assert.deepEqual(errors, []);
});

test("the guide's facades", { timeout: 240_000 }, async (t) => {
  const site = await shop(t);
  const page = await (await (await sharedBrowser(t)).createBrowserContext()).newPage();
  await page.goto(`${site.origin}/facades.html`);
  const message = () => page.$eval("#message", (e) => e.textContent ?? "");
  await until("sent", async () => /have everything/.test(await message()));
  assert.equal(await message(), "1 of 1 have everything.");
});

test("the guide's policy is enough, and each part of it is needed", { timeout: 240_000 }, async (t) => {
  const site = await shop(t);
  const context = await (await sharedBrowser(t)).createBrowserContext();
  const full = samplePolicy();
  /** The policy with a part of it replaced. @param {string} part @param {string} instead */
  const changed = (part, instead) => {
    assert.ok(full.includes(part), `the policy has ${part}`);
    return full.replace(part, instead);
  };
  /** What load gives under a policy: where it stores, or a code. @param {string} policy @param {object} [options] */
  const load = async (policy, options = { workerURL: "/storage-worker.js" }) => {
    site.policy = policy;
    const page = await context.newPage();
    await page.goto(`${site.origin}/blank.html`);
    const outcome = await page.evaluate(
      async (server, given) => {
        try {
          const { load } = await import(`${server}/tallow.js`);
          const tallow = await load(given);
          return tallow.features.storage;
        } catch (error) {
          return error.code ?? error.name;
        }
      },
      site.tallow,
      options,
    );
    await page.close();
    return outcome;
  };
  const types = "; require-trusted-types-for 'script'; trusted-types ";
  assert.equal(await load(full), "opfs");
  assert.equal(await load(`${full}${types}tallow-worker`), "opfs");
  assert.equal(await load(`${full}${types}other`), "memory", "the policy's name has to be allowed");
  assert.equal(await load(full, {}), "memory", "a worker of another origin does not start");
  assert.equal(await load(changed("worker-src 'self'", "worker-src 'none'")), "memory");
  assert.equal(await load(changed(" 'wasm-unsafe-eval'", "")), "unsupported-browser");
  assert.equal(await load(changed("connect-src 'self' https://tallow.example", "connect-src 'self'")), "server-unreachable");
  assert.equal(await load(changed("script-src 'self' https://tallow.example", "script-src 'self'")), "TypeError");

  site.tallow = (await startServer(t, { args: ["-turn=false"] })).url;
  assert.equal(await load(full), "TypeError", "without -allow-origin there is no import");
});
