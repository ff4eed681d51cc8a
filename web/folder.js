// @ts-check
// Puts files into a folder that the person has picked, with the folders of their paths. What is there already is never overwritten: whoever comes
// to a name that is taken gets a number.

/** How many files are written at a time: making one takes longer than writing it, if it is small. */
const atATime = 8;
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
 * @param {FileSystemDirectoryHandle} root
 * @param {{ path: string, file: (() => Promise<Blob>) | undefined }[]} items with safe paths; without a file it is a folder
 * @param {AbortSignal} [signal]
 */
export async function saveInto(root, items, signal) {
  /** Folders by path. @type {Map<string, Promise<FileSystemDirectoryHandle>>} */
  const folders = new Map([["", Promise.resolve(root)]]);
  /** The names that somebody is to have, and those that somebody has taken. */
  const given = new Set(items.map(({ path }) => path.toLowerCase()));
  const used = new Set();

  /**
   * A name in a folder that nothing has.
   * @param {FileSystemDirectoryHandle} folder @param {string} parent @param {string} name @param {boolean} shared a folder of that name will do
   */
  const free = async (folder, parent, name, shared) => {
    let base = name;
    for (let n = 1; ; n++) {
      const candidate = numbered(base, n);
      const key = `${parent}/${candidate}`.replace(/^\//, "").toLowerCase();
      if (used.has(key) || (candidate !== name && given.has(key))) continue;
      used.add(key); // before anything is waited for: others look for names meanwhile
      // Browsers refuse some names, such as "a.lnk": they are saved under another one.
      const found = await kind(folder, candidate).catch((error) => {
        if (error instanceof TypeError && !base.endsWith("_")) return undefined;
        throw error;
      });
      if (found === "" || (shared && found === "directory")) return candidate;
      if (found === undefined) [base, n] = [`${name}_`, 0];
    }
  };
  /** @param {string} path @returns {Promise<FileSystemDirectoryHandle>} */
  const makeFolder = (path) => {
    let made = folders.get(path);
    if (!made) {
      made = (async () => {
        const at = path.lastIndexOf("/");
        const [parent, name] = [path.slice(0, Math.max(0, at)), path.slice(at + 1)];
        const folder = await makeFolder(parent);
        return folder.getDirectoryHandle(await free(folder, parent, name, true), { create: true });
      })();
      folders.set(path, made);
    }
    return made;
  };
  /** @param {string} path @param {() => Promise<Blob>} file */
  const save = async (path, file) => {
    const at = path.lastIndexOf("/");
    const parent = path.slice(0, Math.max(0, at));
    const folder = await makeFolder(parent);
    const name = await free(folder, parent, path.slice(at + 1), false);
    const handle = await folder.getFileHandle(name, { create: true });
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
      await folder.removeEntry(name).catch(() => {}); // it is ours, and not whole
      throw error;
    }
  };
  let next = 0;
  let failed = false;
  const work = async () => {
    while (next < items.length && !failed) {
      const { path, file } = items[next++];
      try {
        signal?.throwIfAborted();
        await (file ? save(path, file) : makeFolder(path));
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  for (const result of await Promise.allSettled(Array.from({ length: atATime }, work))) if (result.status === "rejected") throw result.reason;
}
