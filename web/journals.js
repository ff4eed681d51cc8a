// @ts-check
// What earlier pages have left in the origin private file system: a journal for each transfer that can be gone on with, in the directory
// of its room's identity (storage-worker.js has the layout). Looked at only where no page has that identity now.

const top = async () => (await navigator.storage.getDirectory()).getDirectoryHandle("tallow");

/**
 * The journals in a directory.
 * @param {string | undefined} directory
 * @returns {Promise<{ delivery: string, journal: File }[]>}
 */
export async function journals(directory) {
  const found = [];
  try {
    if (!directory) return [];
    for await (const [delivery, folder] of /** @type {any} */ (await (await top()).getDirectoryHandle(directory)).entries()) {
      if (folder.kind !== "directory") continue;
      try {
        found.push({ delivery, journal: await (await folder.getFileHandle("journal")).getFile() });
      } catch {
        // Nothing unfinished, or a page has just begun with it.
      }
    }
  } catch {
    // No such directory, or no private file system.
  }
  return found;
}

/**
 * Deletes a delivery, or, without one, the whole directory.
 * @param {string | undefined} directory
 * @param {string} [delivery]
 */
export async function remove(directory, delivery) {
  if (!directory) return;
  try {
    const folder = await top();
    if (delivery) await (await folder.getDirectoryHandle(directory)).removeEntry(delivery, { recursive: true });
    else await folder.removeEntry(directory, { recursive: true });
  } catch (error) {
    if (/** @type {any} */ (error)?.name !== "NotFoundError") throw error;
  }
}
