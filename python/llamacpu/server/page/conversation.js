// A conversation as data: a tree of messages, of which one branch is shown. No page, no storage, no network.
//
// {id, revision, title, named, created, updated, model, system, settings, leaf, messages: [message]}
// message: {id, parent, role, content, images, created, changed, reasoning, model, status, error, usage, speed, thought}
//   parent   the id of the message before, null for a first one; a message stands behind its parent in the list
//   status   of an answer: "writing", "done", "stopped", "length", "filtered", "lost" or "failed" (error says why)
//   usage    {prompt, answer, cached} in tokens
//   speed    tokens per second       thought  seconds of reasoning

/** 128 random bits in letters and digits. `crypto.randomUUID` is missing on plain HTTP from another machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An empty conversation. */
export function newConversation({ model = "", system = "", settings = {} } = {}) {
  const now = Date.now();
  return {
    id: newId(), revision: 0, title: "", named: false, created: now, updated: now,
    model, system, settings: { ...settings }, leaf: null, messages: [],
  };
}

/** Put a message behind `parent` and show the branch that it ends. */
export function addMessage(conversation, { parent, role, content = "", ...more }) {
  const now = Date.now();
  const message = { id: newId(), parent, role, content, created: now, changed: now, ...more };
  conversation.messages.push(message);
  conversation.leaf = message.id;
  conversation.updated = now;
  if (!conversation.title && role === "user") conversation.title = titleOf(content) || (more.images ? "Image" : "");
  return message;
}

/** The message with an id, or undefined. */
export function find(conversation, id) {
  return conversation.messages.find((message) => message.id === id);
}

/** The messages from the first to `leaf`, which is the shown one unless told otherwise. */
export function branch(conversation, leaf = conversation.leaf) {
  const byId = new Map(conversation.messages.map((message) => [message.id, message]));
  const found = [];
  for (let message = byId.get(leaf); message; message = byId.get(message.parent)) found.push(message);
  return found.reverse();
}

/** The messages that stand at the same place in other branches, and this one, oldest first. */
export function siblings(conversation, message) {
  return conversation.messages.filter((other) => other.parent === message.parent && other.role === message.role);
}

/** Show the branch through a message, and behind it always the newest message. */
export function choose(conversation, id) {
  const newest = new Map();
  for (const message of conversation.messages) newest.set(message.parent, message.id);
  let leaf = id;
  while (newest.has(leaf)) leaf = newest.get(leaf);
  conversation.leaf = leaf;
}

/** Remove a message with all that follows it, and show what stands beside it or before it. */
export function removeMessage(conversation, id) {
  const gone = new Set([id]);
  const message = find(conversation, id);
  // Children stand behind their parents, so one pass finds all.
  for (const other of conversation.messages) if (gone.has(other.parent)) gone.add(other.id);
  conversation.messages = conversation.messages.filter((other) => !gone.has(other.id));
  if (gone.has(conversation.leaf)) {
    const beside = siblings(conversation, message).at(-1);
    if (beside) choose(conversation, beside.id);
    else conversation.leaf = message.parent;
  }
  conversation.updated = Date.now();
}

/** The first line of a text, short enough for a list. */
export function titleOf(text) {
  const line = text.split("\n").map((part) => part.trim()).find((part) => part !== "") ?? "";
  const characters = Array.from(line);
  return characters.length > 60 ? `${characters.slice(0, 59).join("").trimEnd()}…` : line;
}

/** What is sent to the model for the branch that ends with `leaf`. */
export function requestMessages(conversation, leaf) {
  const messages = [];
  for (const { role, content: words, images } of branch(conversation, leaf)) {
    const content = images?.length > 0 ? withImages(words, images) : words;
    // An answer that failed before its first word is none. Roles have to alternate: the messages around it are one.
    if (role === "assistant" && content === "") continue;
    const before = messages.at(-1);
    if (before?.role === role) before.content = joined(before.content, content);
    else messages.push({ role, content });
  }
  if (conversation.system.trim() !== "") messages.unshift({ role: "system", content: conversation.system });
  return messages;
}

/** A message's content as parts: its images, and then its text. */
function withImages(text, images) {
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return text === "" ? parts : [...parts, { type: "text", text }];
}

function joined(first, second) {
  if (typeof first === "string" && typeof second === "string") return `${first}\n\n${second}`;
  const parts = (content) => (typeof content === "string" ? [{ type: "text", text: content }] : content);
  return [...parts(first), ...parts(second)];
}

/** Two versions of one conversation, written in two windows, as one: nothing that either has is lost. */
export function merged(stored, own) {
  const byId = new Map(stored.messages.map((message) => [message.id, message]));
  for (const message of own.messages) {
    const other = byId.get(message.id);
    if (!other || other.changed <= message.changed) byId.set(message.id, message);
  }
  // Parents first: both lists have them so, and what only one has follows.
  const newer = stored.updated > own.updated ? stored : own;
  const title = own.named || !stored.named ? own : stored;
  return {
    ...newer, title: title.title, named: title.named, leaf: own.leaf, messages: [...byId.values()],
    updated: Math.max(stored.updated, own.updated),
  };
}
