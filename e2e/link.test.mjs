// A link on its way into the page: what else happens to the tab meanwhile must not lose it.

import assert from "node:assert/strict";
import test from "node:test";
import { startServer, until } from "./harness.mjs";
import { Person } from "./person.mjs";

test("a link opened while the page enters another room", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const [ada, cleo, ben] = await Promise.all(["Ada", "Cleo", "Ben"].map((name) => Person.arrive(t, { name })));
  await ada.page.evaluateOnNewDocument(() => location.protocol.startsWith("http") && localStorage.setItem("tallow.approval", "yes"));
  for (const person of [ada, cleo]) await person.open(`${server.url}/`);
  const [asked, other] = [await ada.link(), await cleo.link()];
  await ben.open(asked);
  await ben.sees(/Waiting to be let in/);

  // The page is to be loaded again for the other link; before that comes about, it gets into the first room.
  await ben.page.setRequestInterception(true);
  const reload = new Promise((resolve) =>
    ben.page.on("request", (request) => (request.isNavigationRequest() ? resolve(request) : request.continue())),
  );
  await ben.page.evaluate((hash) => void (location.hash = hash), new URL(other).hash);
  const held = /** @type {import("puppeteer-core").HTTPRequest} */ (await reload);
  await ada.press("Let Ben in");
  await ada.meets(1); // the driver cannot look into Ben's page while its next load is held up
  await held.continue();

  await cleo.meets(1);
  await until("the other room", async () => (await ben.link()) === other);
  await cleo.sees(/Ben/);
});

test("a tab whose storage is refused enters the room of its link, and of the next", { timeout: 240_000 }, async (t) => {
  const server = await startServer(t);
  const refused = () =>
    Object.defineProperty(window, "sessionStorage", {
      get() {
        throw new DOMException("refused", "SecurityError");
      },
    });
  const [ada, cleo, ben] = await Promise.all([
    Person.arrive(t, { name: "Ada" }),
    Person.arrive(t, { name: "Cleo" }),
    Person.arrive(t, { name: "Ben", before: refused }),
  ]);
  for (const person of [ada, cleo]) await person.open(`${server.url}/`);
  const links = [await ada.link(), await cleo.link()];
  await ben.open(links[0]);
  await ada.meets(1);
  assert.equal(await ben.link(), links[0]);
  assert.equal(await ben.page.evaluate(() => location.href), `${server.url}/`);

  await ben.page.evaluate((hash) => void (location.hash = hash), new URL(links[1]).hash);
  await cleo.meets(1);
  assert.equal(await ben.link(), links[1]);
  assert.equal(await ben.page.evaluate(() => location.href), `${server.url}/`);
  await until("the first room is left", async () => !/Ben/.test(await ada.text()));
  assert.deepEqual(ben.errors, []);
});
