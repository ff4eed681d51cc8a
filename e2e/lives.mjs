// Members whose pages die and come back.

import { prepare } from "./member.mjs";

/**
 * The blank page of a browser with the API loaded, again after a reload.
 * @param {import("puppeteer-core").Browser} browser @param {string} url
 */
export async function member(browser, url) {
  const [page] = await browser.pages();
  await page.goto(`${url}/healthz`);
  await page.evaluate(count);
  await page.evaluate(prepare);
  return page;
}

/**
 * Crashes a page's renderer, and returns a new page of its browser.
 * @param {import("puppeteer-core").Page} page
 */
export async function crash(page) {
  await page.goto("chrome://crash").catch(() => {}); // the renderer dies
  const next = await page.browser().newPage();
  await page.close().catch(() => {});
  return next;
}

/** Runs in the page: counts what is sent over data channels. */
export function count() {
  const { send } = RTCDataChannel.prototype;
  globalThis.sentBytes = 0;
  RTCDataChannel.prototype.send = function (data) {
    globalThis.sentBytes += data.byteLength ?? data.length;
    return send.call(this, data);
  };
}

/** @param {import("puppeteer-core").Page} page @param {string | undefined} link @param {string} name */
export const enter = (page, link, name) =>
  page.evaluate(
    async (to, given) => {
      // The page before this one may need a moment to let go of the room.
      await me.until(async () => !to || (await me.tallow.remembered()).some((room) => room.link === to) || globalThis.fresh);
      me.watch(to ? await me.tallow.joinRoom(to, { name: given }) : await me.tallow.createRoom({ name: given }));
      return me.room.link;
    },
    link,
    name,
  );

/** @param {import("puppeteer-core").Page} page */
export const fresh = (page) => page.evaluate(() => void (globalThis.fresh = true));

/** What a sender knows to be on its first recipient's disk. @param {import("puppeteer-core").Page} page */
export const told = (page) => page.evaluate(() => me.transfer.recipients[0].bytes);
