// Answers that are being written when the window closes. IndexedDB has no time for them then, what is stored at once has.

import { find } from "./conversation.js";
import { preferences } from "./options.js";

function kept() {
  try {
    const list = JSON.parse(preferences.get("unfinished") ?? "[]");
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

export function keepUnfinished(generations) {
  if (generations.length === 0) return;
  const more = generations.map(({ conversation, message }) => ({ id: conversation.id, message: { ...message, changed: Date.now() } }));
  preferences.set("unfinished", JSON.stringify([...kept(), ...more]));
}

/** Put them into their conversations. */
export async function takeUnfinished(store) {
  const list = kept();
  preferences.set("unfinished", null);
  for (const { id, message } of list) {
    const conversation = await store.load(id);
    const stored = conversation && find(conversation, message.id);
    if (!stored || stored.changed >= message.changed) continue;
    Object.assign(stored, message);
    await store.save(conversation);
  }
}
