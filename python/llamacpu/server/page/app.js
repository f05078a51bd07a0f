// The page: what happens when a person does something.

import { Composer } from "./composer.js";
import { showContext } from "./context.js";
import { addMessage, branch, choose, find, newConversation, removeMessage, titleOf } from "./conversation.js";
import { showConversationMenu } from "./conversation_menu.js";
import { copied } from "./copied.js";
import { ask, isDark, setTheme, showSettings, showShortcuts } from "./dialogs.js";
import { announce, byId, copy } from "./dom.js";
import { exportAll, exportOne, importFile } from "./files.js";
import { Generation } from "./generation.js";
import { listen } from "./keyboard.js";
import { Models } from "./models.js";
import { notice } from "./notice.js";
import { defaults, setDefaults } from "./options.js";
import { Sidebar } from "./sidebar.js";
import { openStore } from "./store.js";
import { Transcript } from "./transcript.js";
import { keepUnfinished, takeUnfinished } from "./unfinished.js";

/** Answers being written, by the id of their conversation. */
const generations = new Map();
let conversation = newConversation(defaults());

const store = await openStore((id) => changedElsewhere(id));
const models = new Models({
  chosen(id) {
    conversation.model = id;
    if (conversation.messages.length > 0) save(conversation);
    showContext(conversation, models.context);
  },
  loaded: () => { notice.hide("models"); showContext(conversation, models.context); },
  failed(error) {
    if (error.kind === "key") notice.show(error.message, "Enter the key", () => openSettings({ key: true }), "models");
    else notice.show(error.message, "Try again", () => models.load(), "models");
  },
});
const transcript = new Transcript({
  copy: async (message, button) => copied(button, await copy(message.content)),
  retry: (message) => answer(message.parent),
  resume: (message) => resume(message),
  edit: (message, text) => edit(message, text),
  remove: (message) => remove(message),
  choose(message) {
    choose(conversation, message.id);
    save(conversation);
    show();
    transcript.view(message.id)?.element.querySelector(".versions button:not([disabled])")?.focus();
  },
});
const composer = new Composer({ ready, send, stop, editLast });
const sidebar = new Sidebar(store, { open, options: showOptions, failed: (error) => notice.show(error.message) });

function show() {
  const generation = generations.get(conversation.id) ?? null;
  transcript.show(conversation, generation);
  byId("title").textContent = conversation.title || "New conversation";
  document.title = conversation.title ? `${conversation.title} · llamacpu` : "llamacpu";
  byId("more").disabled = conversation.messages.length === 0;
  composer.show(conversation.messages.length > 0 ? conversation.id : "new", generation !== null);
  models.show(conversation.model);
  showContext(conversation, models.context);
}

function list() {
  return sidebar.refresh({ current: conversation.id, writing: new Set(generations.keys()) });
}

async function save(changed) {
  try {
    if (!(await store.save(changed))) notice.show("This conversation was deleted in another window; what is new in it is not kept.");
  } catch (error) {
    notice.show(error.message, "Export it", () => exportOne(changed));
  }
  list();
}

async function changedElsewhere(id) {
  list();
  if (id !== conversation.id || generations.has(id)) return;
  const stored = await store.load(id).catch(() => undefined);
  // An answer may have begun here meanwhile: its save joins both.
  if (conversation.id !== id || generations.has(id)) return;
  if (!stored) return startNew({ focus: false });
  conversation = { ...stored, leaf: find(stored, conversation.leaf) ? conversation.leaf : stored.leaf };
  if (branch(conversation).at(-1)) choose(conversation, conversation.leaf);
  show();
}

function startNew({ focus = true, push = true } = {}) {
  conversation = newConversation(defaults());
  if (push && location.hash) history.pushState(null, "", location.pathname + location.search);
  show();
  list();
  sidebar.leave();
  if (focus) composer.focus();
}

async function open(id) {
  const generation = generations.get(id);
  let found;
  try {
    found = generation?.conversation ?? (await store.load(id));
  } catch (error) {
    return notice.show(error.message);
  }
  if (!found) return startNew();
  conversation = found;
  if (location.hash !== `#${id}`) history.pushState(null, "", `#${id}`);
  show();
  list();
  sidebar.leave();
  composer.focus();
}

/** Ask for an answer behind the message `parent`, in a branch of its own where there is one already. */
async function answer(parent) {
  await halt();
  const message = addMessage(conversation, { parent, role: "assistant", model: models.current, status: "writing" });
  await write(message);
}

async function resume(message) {
  await halt();
  conversation.leaf = message.id;
  message.model ||= models.current;
  await write(message);
}

async function write(message) {
  const written = conversation;
  const generation = new Generation(written, message, {
    save,
    changed: () => written === conversation && transcript.grow(),
    ended: (_, error) => ended(generation, error),
  });
  generations.set(written.id, generation);
  // Seconds pass while a long prompt is read: the page shows that it waits.
  generation.clock = setInterval(() => written === conversation && transcript.grow(), 1000);
  if (location.hash !== `#${written.id}`) history.pushState(null, "", `#${written.id}`);
  show();
  transcript.toEnd();
  announce("Answering");
  save(written);
  generation.ended = generation.run();
  await generation.ended;
}

function ended(generation, error) {
  const { conversation: written, message } = generation;
  clearInterval(generation.clock);
  generations.delete(written.id);
  if (written.id === conversation.id) {
    show();
    const text = message.content.length > 500 ? `${message.content.slice(0, 500)}…` : message.content;
    announce(error ? message.error : `${message.status === "stopped" ? "Stopped" : "Answer"}: ${text}`);
  }
  if (error?.kind === "key") models.failed(error);
  // A server that loads a model when it is asked for knows its context from then on.
  else if (models.context === null) models.load({ quiet: true });
}

/** Stop the answer of the shown conversation; it is over when this ends. */
async function halt() {
  const generation = generations.get(conversation.id);
  generation?.stop();
  await generation?.ended;
}

function stop() {
  generations.get(conversation.id)?.stop();
  composer.focus();
}

/** Whether a message can be sent; where no model is known yet, the server is asked again. */
function ready() {
  if (!models.current) models.load();
  return Boolean(models.current);
}

async function send(text, images = []) {
  const { leaf } = conversation;
  conversation.model ||= models.current;
  const message = addMessage(conversation, { parent: leaf, role: "user", content: text, ...(images.length > 0 && { images }) });
  await answer(message.id);
}

async function edit(message, text) {
  await halt();
  if (message.role === "user") {
    const { parent, images } = message;
    const changed = addMessage(conversation, { parent, role: "user", content: text, ...(images && { images }) });
    if (!message.parent && !conversation.named) conversation.title = titleOf(text);
    return answer(changed.id);
  }
  const { parent, role, model, reasoning } = message;
  addMessage(conversation, { parent, role, model, reasoning, content: text, status: "stopped" });
  show();
  await save(conversation);
}

function editLast() {
  const message = branch(conversation).findLast(({ role }) => role === "user");
  if (message && !generations.has(conversation.id)) transcript.view(message.id)?.edit();
}

async function remove(message) {
  const more = conversation.messages.some(({ parent }) => parent === message.id);
  const words = more ? "Everything that follows it is deleted, too." : "";
  if (!(await ask({ title: "Delete this message?", words, yes: "Delete", danger: true }))) return;
  await halt();
  removeMessage(conversation, message.id);
  if (conversation.messages.length === 0) return removeAll([conversation.id]);
  show();
  await save(conversation);
  composer.focus();
}

async function removeAll(ids) {
  for (const id of ids) {
    generations.get(id)?.stop();
    await generations.get(id)?.ended;
  }
  try {
    await store.remove(ids);
  } catch (error) {
    return notice.show(error.message);
  }
  if (ids.includes(conversation.id)) startNew();
  else list();
}

function showOptions(button, { id, title }) {
  showConversationMenu(button, title, {
    current: async () => (id === conversation.id ? conversation : generations.get(id)?.conversation ?? (await store.load(id))),
    async renamed(changed) {
      await save(changed);
      if (changed === conversation) show();
    },
    remove: () => removeAll([id]),
  });
}

function openSettings(options) {
  showSettings(conversation, (values) => {
    Object.assign(conversation, values);
    setDefaults(values);
    if (conversation.messages.length > 0) save(conversation);
    models.load();
  }, options);
}

for (const id of ["new", "new-short"]) byId(id).addEventListener("click", () => startNew());
byId("settings-open").addEventListener("click", () => openSettings());
byId("shortcuts-open").addEventListener("click", showShortcuts);
byId("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
byId("more").addEventListener("click", (event) => showOptions(event.currentTarget, conversation));
byId("export-all").addEventListener("click", () => exportAll(store));
byId("delete-all").addEventListener("click", async () => {
  byId("settings").close("no");
  if (await ask({ title: "Delete all conversations?", words: "They are deleted from this browser.", yes: "Delete all", danger: true })) {
    removeAll((await store.list()).map(({ id }) => id));
  }
});
byId("import").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  const found = file ? await importFile(store, file) : [];
  target.value = "";
  if (found.length === 0) return;
  await open(found[0].id);
  announce(found.length === 1 ? "One conversation imported" : `${found.length} conversations imported`);
});
byId("transcript").addEventListener("click", async ({ target }) => {
  const button = target.closest(".copy-code");
  if (button) copied(button, await copy(button.closest(".code").querySelector("code").textContent));
});

listen({
  escape() {
    if (sidebar.covers) sidebar.toggle(false);
    else if (generations.has(conversation.id)) stop();
    else composer.focus();
  },
  add: startNew,
  answer: () => [...document.querySelectorAll(".message.assistant")].at(-1)?.focus(),
  find: () => sidebar.find(),
  sidebar: () => sidebar.toggle(),
  settings: () => openSettings(),
  shortcuts: showShortcuts,
});

addEventListener("popstate", () => {
  const id = location.hash.slice(1);
  if (id && id !== conversation.id) open(id);
  else if (!id && conversation.messages.length > 0) startNew({ push: false });
});
addEventListener("pagehide", () => keepUnfinished([...generations.values()]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => byId("theme").setAttribute("aria-pressed", String(isDark())));

byId("theme").setAttribute("aria-pressed", String(isDark()));
show();
models.load();
if (!store.kept) notice.show("This browser lets the page store nothing: conversations are gone when it is closed. Export what you want to keep.");
await takeUnfinished(store).catch((error) => notice.show(error.message));
const wanted = location.hash.slice(1);
if (/^[0-9a-f]{32}$/.test(wanted)) await open(wanted);
else await list();
document.documentElement.dataset.ready = "";
