// What can be done with a whole conversation: rename, export, delete.

import { ask, showMenu } from "./dialogs.js";
import { exportOne } from "./files.js";

/** Show the menu of a conversation; `current` loads it, `renamed` and `remove` do what was chosen. */
export function showConversationMenu(button, title, { current, renamed, remove }) {
  showMenu(button, [
    {
      words: "Rename",
      async act() {
        const name = await ask({ title: "Rename conversation", yes: "Rename", text: title });
        const found = name && (await current());
        if (!found) return;
        Object.assign(found, { title: name, named: true });
        await renamed(found);
      },
    },
    { words: "Export", act: async () => exportOne(await current()) },
    {
      words: "Delete", danger: true,
      async act() {
        if (await ask({ title: "Delete conversation?", words: `“${title}” is deleted from this browser.`, yes: "Delete", danger: true })) await remove();
      },
    },
  ]);
}
