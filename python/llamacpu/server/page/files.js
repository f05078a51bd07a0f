// Conversations go to files and come from files.

import { download } from "./dom.js";
import { notice } from "./notice.js";
import { fileName, LIMITS, read, written } from "./transfer.js";

export function exportOne(chosen) {
  if (chosen) download(fileName(chosen.title), written([chosen]));
}

export async function exportAll(store) {
  const all = [];
  try {
    await store.each((item) => all.push(item));
  } catch (error) {
    return notice.show(error.message);
  }
  download("conversations.json", written(all));
}

/** Store the conversations of a file and return them; nothing, and words, where one is wrong. */
export async function importFile(store, file) {
  try {
    if (file.size > LIMITS.bytes) throw new Error(`The file has more than ${LIMITS.bytes / 1024 / 1024} MiB.`);
    const found = read(await file.text());
    if (found.length === 0) throw new Error("The file has no conversations.");
    await store.add(found);
    notice.hide();
    return found;
  } catch (error) {
    notice.show(`${file.name} was not imported. ${error.message}`);
    return [];
  }
}
