// @ts-check
// Puts files into a folder that the person has picked, with the folders of their paths. What is there already is never overwritten: whoever comes
// to a name that is taken gets a number.

/** How many files are written at a time: making one takes longer than writing it, if it is small. */
export const atATime = 8;
/** How much is copied between two looks at whether to go on. */
const partBytes = 16 << 20;

/** "a.txt", 2 → "a (2).txt". @param {string} name @param {number} n */
function numbered(name, n) {
  if (n === 1) return name;
  const dot = name.lastIndexOf(".");
  const [stem, ext] = dot > 0 && name.length - dot <= 16 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  return `${stem} (${n})${ext}`;
}

/** Paths of which none is there twice, in whatever case: one that was there before gets a number. @param {string[]} paths */
export function distinct(paths) {
  const given = new Set(paths.map((path) => path.toLowerCase()));
  const used = new Set();
  return paths.map((path) => {
    const at = path.lastIndexOf("/") + 1;
    for (let n = 1; ; n++) {
      const candidate = path.slice(0, at) + numbered(path.slice(at), n);
      const key = candidate.toLowerCase();
      if (used.has(key) || (n > 1 && given.has(key))) continue;
      used.add(key);
      return candidate;
    }
  });
}

/** What there is under a name. @param {FileSystemDirectoryHandle} folder @param {string} name @returns {Promise<"" | "file" | "directory">} */
async function kind(folder, name) {
  try {
    await folder.getFileHandle(name);
    return "file";
  } catch (error) {
    const reason = /** @type {any} */ (error).name;
    if (reason === "NotFoundError") return "";
    if (reason === "TypeMismatchError") return "directory";
    throw error;
  }
}

/**
 * Does something about a name once nobody else does, in whatever tab: deliveries may have the same folder, and between finding a name free and taking it there is time.
 * @template T @param {string} name @param {() => Promise<T>} act @returns {Promise<T>}
 */
const alone = (name, act) => navigator.locks?.request(`tallow name ${name.toLowerCase()}`, act) ?? act();

/** How many make files and folders in this tab: what one has made another may have found there. */
let makers = 0;

/**
 * Makes files and folders, none of which was there before.
 * @param {FileSystemDirectoryHandle} root
 * @param {string[]} paths what is to be made: safe ones
 */
export function placesIn(root, paths) {
  /** Folders by path. @type {Map<string, Promise<FileSystemDirectoryHandle>>} */
  const folders = new Map([["", Promise.resolve(root)]]);
  let making = false;
  /** Removes a folder that was made here, unless something is in it; those that lie in others come after them. @type {Map<string, () => Promise<void>>} */
  const made = new Map();
  /** The names that somebody is to have, and those that somebody has taken. */
  const given = new Set(paths.map((path) => path.toLowerCase()));
  const used = new Set();

  /**
   * Makes something in a folder, under a name that nothing has.
   * @template {FileSystemHandle} T
   * @param {FileSystemDirectoryHandle} folder @param {string} parent @param {string} name
   * @param {(name: string) => Promise<T>} create @param {boolean} shared a folder of that name will do
   */
  const make = async (folder, parent, name, create, shared) => {
    let base = name;
    for (let n = 1; ; n++) {
      const candidate = numbered(base, n);
      const key = `${parent}/${candidate}`.replace(/^\//, "").toLowerCase();
      if (used.has(key) || (candidate !== name && given.has(key))) continue;
      used.add(key); // before anything is waited for: others look for names meanwhile
      const place = await alone(candidate, async () => {
        // Browsers refuse some names, such as "a.lnk": they are saved under another one.
        const found = await kind(folder, candidate).catch((error) => {
          if (error instanceof TypeError && !base.endsWith("_")) return undefined;
          throw error;
        });
        if (found === undefined) [base, n] = [`${name}_`, 0];
        return found === "" || (shared && found === "directory") ? { name: candidate, there: found !== "", handle: await create(candidate) } : undefined;
      });
      if (place) return place;
    }
  };
  /** @param {FileSystemDirectoryHandle} folder @param {string} name What is there no more, or has something in it, stays as it is. */
  const remover = (folder, name) => () => folder.removeEntry(name).catch(() => {});
  /** @param {string} path @returns {Promise<FileSystemDirectoryHandle>} */
  const makeFolder = (path) => {
    if (!making) makers++;
    making = true;
    let folder = folders.get(path);
    if (!folder) {
      folder = (async () => {
        const at = path.lastIndexOf("/");
        const parent = path.slice(0, Math.max(0, at));
        const outer = await makeFolder(parent);
        const { name, there, handle } = await make(outer, parent, path.slice(at + 1), (free) => outer.getDirectoryHandle(free, { create: true }), true);
        if (!there) made.set(path, () => alone(name, async () => (makers === 1 ? remover(outer, name)() : undefined)));
        return handle;
      })();
      folders.set(path, folder);
    }
    return folder;
  };
  return {
    makeFolder,
    /** Makes an empty file. @param {string} path */
    async makeFile(path) {
      const at = path.lastIndexOf("/");
      const parent = path.slice(0, Math.max(0, at));
      const folder = await makeFolder(parent);
      const { name, handle } = await make(folder, parent, path.slice(at + 1), (free) => folder.getFileHandle(free, { create: true }), false);
      return { handle, remove: remover(folder, name) };
    },
    /**
     * Removes the folders that were made and have nothing in them, unless somebody else makes files just now. Nothing is made afterwards.
     * @param {(path: string) => boolean} stays whatever is in it
     */
    async end(stays) {
      for (const [path, remove] of [...made].reverse()) if (!stays(path)) await remove();
      if (making) makers--;
      making = false;
    },
  };
}

/**
 * Does something with each of a list, some at a time, until one of them fails. Resolves or rejects when nothing of it runs any more.
 * @template T @param {T[]} items @param {(item: T) => Promise<unknown>} act
 */
export async function someAtATime(items, act) {
  let next = 0;
  let failed = false;
  const work = async () => {
    while (next < items.length && !failed) {
      try {
        await act(items[next++]);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  for (const result of await Promise.allSettled(Array.from({ length: Math.min(atATime, items.length) }, work))) if (result.status === "rejected") throw result.reason;
}

/**
 * @param {FileSystemDirectoryHandle} root
 * @param {{ path: string, file: (() => Promise<Blob>) | undefined }[]} items with safe paths; without a file it is a folder
 * @param {AbortSignal} [signal]
 */
export async function saveInto(root, items, signal) {
  const { makeFolder, makeFile, end } = placesIn(root, items.map(({ path }) => path));
  const saving = someAtATime(items, async ({ path, file }) => {
    signal?.throwIfAborted();
    if (!file) return makeFolder(path);
    const { handle, remove } = await makeFile(path);
    try {
      const blob = await file();
      const out = await handle.createWritable();
      try {
        // The browser copies parts of a Blob by itself; those of a stream would pass through the tab.
        for (let at = 0; at < blob.size; at += partBytes) {
          signal?.throwIfAborted();
          await out.write(blob.slice(at, at + partBytes));
        }
      } catch (error) {
        await out.abort().catch(() => {});
        throw error;
      }
      await out.close();
    } catch (error) {
      await remove(); // it is ours, and not whole
      throw error;
    }
  });
  try {
    await saving;
  } finally {
    await end(() => true);
  }
}
