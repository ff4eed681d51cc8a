// Members whose pages die and come back.

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
