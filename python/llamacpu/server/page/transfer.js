// Conversations as files: written for people and programs, read with distrust.

import { newConversation, newId, titleOf } from "./conversation.js";
import { isImage } from "./images.js";
import { SETTINGS } from "./options.js";

const FORMAT = "llamacpu-conversations";
const VERSION = 1;
export const LIMITS = { bytes: 32 * 1024 * 1024, conversations: 10_000, messages: 20_000, text: 4 * 1024 * 1024 };
const STATUSES = ["done", "stopped", "length", "filtered", "lost", "failed"];

/** The text of a file that `read` understands. */
export function written(conversations) {
  const plain = conversations.map((conversation) => ({
    title: conversation.title, named: conversation.named,
    created: new Date(conversation.created).toISOString(), updated: new Date(conversation.updated).toISOString(),
    model: conversation.model, system: conversation.system, settings: conversation.settings,
    shown: conversation.leaf, messages: conversation.messages,
  }));
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations: plain }, null, 2) + "\n";
}

/** A name for the file of one conversation: letters and digits of its title. */
export function fileName(title) {
  const words = title.normalize("NFKC").replace(/[^\p{Letter}\p{Number}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${Array.from(words).slice(0, 50).join("") || "conversation"}.json`;
}

/**
 * The conversations of a file, checked field by field and with new ids: nothing of the file is trusted, what is not
 * known is left out. Throws an Error that says what was wrong.
 */
export function read(text) {
  if (text.length > LIMITS.bytes) throw new Error(`The file has more than ${LIMITS.bytes / 1024 / 1024} MiB.`);
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new Error(`The file is not JSON: ${error.message}`);
  }
  if (!isObject(file) || file.format !== FORMAT) {
    throw new Error(`This is not a file of conversations: "format" should be "${FORMAT}".`);
  }
  if (file.version !== VERSION) {
    throw new Error(`The file has version ${shown(file.version)}; this page reads version ${VERSION}.`);
  }
  const list = array(file.conversations, "conversations", LIMITS.conversations);
  return list.map((item, index) => conversationOf(item, `conversations[${index}]`));
}

function conversationOf(item, place) {
  object(item, place);
  const messages = array(item.messages, `${place}.messages`, LIMITS.messages);
  const ids = new Map();
  const conversation = newConversation({
    model: string(item.model ?? "", `${place}.model`, 1000),
    system: string(item.system ?? "", `${place}.system`, LIMITS.text),
    settings: settingsOf(item.settings ?? {}, `${place}.settings`),
  });
  conversation.messages = messages.map((entry, index) => {
    const where = `${place}.messages[${index}]`;
    const message = messageOf(entry, where, ids);
    const key = string(entry.id, `${where}.id`, 200);
    if (ids.has(key)) throw new Error(`${where}.id is the id of an earlier message, too.`);
    ids.set(key, message.id);
    return message;
  });
  conversation.leaf = conversation.messages.at(-1)?.id ?? null;
  if (item.shown !== undefined && item.shown !== null) {
    if (!ids.has(item.shown)) throw new Error(`${place}.shown is the id of no message.`);
    conversation.leaf = ids.get(item.shown);
  }
  const firstWords = conversation.messages.find(({ role }) => role === "user")?.content ?? "";
  conversation.title = titleOf(string(item.title ?? "", `${place}.title`, 10_000)) || titleOf(firstWords) || "Imported";
  conversation.named = item.named === true;
  conversation.created = time(item.created, `${place}.created`);
  conversation.updated = time(item.updated, `${place}.updated`);
  return conversation;
}

function messageOf(entry, place, ids) {
  object(entry, place);
  if (entry.role !== "user" && entry.role !== "assistant") {
    throw new Error(`${place}.role should be "user" or "assistant", it is ${shown(entry.role)}.`);
  }
  if (entry.parent !== null && !ids.has(entry.parent)) {
    throw new Error(`${place}.parent should be null or the id of an earlier message, it is ${shown(entry.parent)}.`);
  }
  const created = time(entry.created, `${place}.created`);
  const message = {
    id: newId(), parent: entry.parent === null ? null : ids.get(entry.parent), role: entry.role,
    content: string(entry.content, `${place}.content`, LIMITS.text), created, changed: created,
  };
  if (entry.images !== undefined) {
    const sound = Array.isArray(entry.images) && entry.images.length <= 64 && entry.images.every(isImage);
    if (!sound || entry.role !== "user") throw new Error(`${place}.images should be images as data URLs, of a message of the user.`);
    message.images = entry.images;
  }
  if (entry.role === "assistant") {
    message.status = STATUSES.includes(entry.status) ? entry.status : "done";
    for (const [name, most] of [["reasoning", LIMITS.text], ["model", 1000], ["error", 10_000]]) {
      if (entry[name] !== undefined) message[name] = string(entry[name], `${place}.${name}`, most);
    }
    for (const name of ["speed", "thought"]) {
      if (entry[name] !== undefined) message[name] = number(entry[name], `${place}.${name}`);
    }
    if (entry.usage !== undefined) {
      object(entry.usage, `${place}.usage`);
      message.usage = {};
      for (const name of ["prompt", "answer", "cached"]) {
        if (entry.usage[name] !== undefined) message.usage[name] = number(entry.usage[name], `${place}.usage.${name}`);
      }
    }
  }
  return message;
}

function settingsOf(values, place) {
  object(values, place);
  const settings = {};
  for (const setting of SETTINGS) {
    if (!Object.hasOwn(values, setting.name)) continue;
    const problem = setting.problem(values[setting.name]);
    if (problem) throw new Error(`${place}.${setting.name} ${problem}`);
    settings[setting.name] = values[setting.name];
  }
  return settings;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(value, place) {
  if (!isObject(value)) throw new Error(`${place} should be an object, it is ${shown(value)}.`);
}

function array(value, place, most) {
  if (!Array.isArray(value)) throw new Error(`${place} should be a list, it is ${shown(value)}.`);
  if (value.length > most) throw new Error(`${place} has ${value.length} entries, more than ${most}.`);
  return value;
}

function string(value, place, most) {
  if (typeof value !== "string") throw new Error(`${place} should be a text, it is ${shown(value)}.`);
  if (value.length > most) throw new Error(`${place} has ${value.length} characters, more than ${most}.`);
  return value;
}

function number(value, place) {
  if (typeof value !== "number" || !(value >= 0)) {
    throw new Error(`${place} should be a number of at least 0, it is ${shown(value)}.`);
  }
  return value;
}

/** Milliseconds, of a date or of milliseconds. Times to come are now: they would stay at the top of the list. */
function time(value, place) {
  const milliseconds = typeof value === "string" ? Date.parse(value) : value;
  if (typeof milliseconds !== "number" || !Number.isFinite(milliseconds) || Math.abs(milliseconds) > 8.64e15) {
    throw new Error(`${place} should be a date, it is ${shown(value)}.`);
  }
  return Math.min(milliseconds, Date.now());
}

function shown(value) {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
