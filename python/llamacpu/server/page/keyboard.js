// The shortcuts that work anywhere on the page; dialogs.js lists them.

/** actions: {escape, add, answer, find, sidebar, settings, shortcuts} */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
    const command = event.ctrlKey || event.metaKey;
    const name = { Escape: "escape", ",": command && "settings", "/": command && "shortcuts" }[event.key]
      ?? (command && (event.shiftKey ? { o: "add", u: "answer" } : { k: "find", b: "sidebar" })[event.key.toLowerCase()]);
    if (!name) return;
    event.preventDefault();
    actions[name]();
  });
}
