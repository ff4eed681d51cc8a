// @ts-check
// What earlier pages have left in the origin private file system: a journal for each transfer that can be gone on with, or whose files the person
// does not have yet, in the directory of its room's identity (storage-worker.js has the layout). Looked at only where no page has that identity now.

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
 * What was received in a delivery: all files, one after another.
 * @param {string | undefined} directory
 * @param {string} delivery
 * @returns {Promise<File>}
 */
export async function received(directory, delivery) {
  const folder = await (await (await top()).getDirectoryHandle(String(directory))).getDirectoryHandle(delivery);
  return (await folder.getFileHandle("files")).getFile();
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
