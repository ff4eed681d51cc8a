// A web developer's view: a page with nothing on it but the JS API.

/**
 * Opens a page of a context (a browser profile) of its own, blank but for /tallow.js of that server, with the API loaded and the
 * functions below as "me".
 * @param {import("puppeteer-core").Browser} browser
 * @param {string} url of the server
 * @param {{ before?: (() => void) | (() => void)[] }} [options] before runs in the page before anything else
 */
export async function startMember(browser, url, { before = [] } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  for (const fn of [before].flat()) await page.evaluateOnNewDocument(fn);
  return loadMember(page, url);
}

/** Makes a page that there is one of these, whatever it was before. @param {import("puppeteer-core").Page} page @param {string} url of the server */
export async function loadMember(page, url) {
  await page.goto(`${url}/healthz`);
  await page.evaluate(prepare);
  return page;
}

/** Runs in the page before its scripts: what connects can be found, and cut. */
export function findable() {
  const Real = RTCPeerConnection;
  const made = [];
  Object.assign(window, {
    made,
    RTCPeerConnection: class extends Real {
      /** @param {any[]} args */
      constructor(...args) {
        super(...args);
        made.push(this);
      }
    },
  });
}

/** Runs in the page. */
export async function prepare() {
  const { load, messages, TallowError } = await import("/tallow.js");
  const me = {
    messages,
    TallowError,
    tallow: await load(),
    room: undefined,
    /** Room events, in order. */
    events: [],
    watch(room) {
      me.room = room;
      for (const type of ["peerjoin", "peerleave", "peerchange", "offer", "offerwithdrawn", "statechange", "error", "joinrequest"])
        room.addEventListener(type, (e) => me.events.push({ type, id: e.detail.id, name: e.detail.name, state: e.detail.state, code: e.detail.code }));
    },
    /**
     * Enters a room whose owner is there, if only slowly, and watches it.
     * @param {string} link @param {import("../web/tallow.js").RoomOptions} [options]
     */
    async join(link, options) {
      for (const end = Date.now() + 120_000; ; ) {
        try {
          return me.watch(await me.tallow.joinRoom(link, options));
        } catch (error) {
          if (error.code !== "owner-away" || Date.now() > end) throw error;
        }
      }
    },
    /** A blob whose bytes follow from the seed. @param {number} size @param {number} seed */
    blob(size, seed) {
      const words = new Uint32Array(Math.ceil(size / 4));
      for (let i = 0, x = seed * 2654435761 + 1; i < words.length; i++) {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        words[i] = x;
      }
      return new Blob([words]).slice(0, size);
    },
    /** @param {Blob} blob */
    async sha256(blob) {
      const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
      return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
    },
    /** @param {() => any} look @param {number} [timeout] */
    async until(look, timeout = 120_000) {
      const end = Date.now() + timeout;
      for (;;) {
        const value = await look();
        if (value) return value;
        if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${look}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    /** The offer that is open, or comes. No poll: a hidden page's would be late. @param {number} [timeout] */
    offer: (timeout = 120_000) =>
      new Promise((resolve, reject) => {
        const { room } = me;
        const timer = setTimeout(() => reject(new Error(`no offer within ${timeout} ms`)), timeout);
        const look = () => {
          const [offer] = room.offers;
          if (!offer) return;
          clearTimeout(timer);
          room.removeEventListener("offer", look);
          resolve(offer);
        };
        room.addEventListener("offer", look);
        look();
      }),
    /** The names of what lies in the private file system, over all deliveries, in order. */
    async stored() {
      const names = [];
      const top = await (await navigator.storage.getDirectory()).getDirectoryHandle("tallow");
      for await (const [, room] of top.entries()) {
        for await (const [, delivery] of room.entries()) if (delivery.kind === "directory") for await (const [name] of delivery.entries()) names.push(name);
      }
      return names.sort();
    },
    /** That many others are connected. @param {number} n @param {number} [timeout] */
    meets: (n, timeout) => me.until(() => me.room.peers.filter((p) => p.state === "open").length === n, timeout),
    /** The code that a promise is rejected with, or "resolved". @param {Promise<any>} promise */
    code: (promise) =>
      promise.then(
        () => "resolved",
        (error) => (error instanceof TallowError ? error.code : `not a TallowError: ${error}`),
      ),
  };
  Object.assign(globalThis, { me });
}
