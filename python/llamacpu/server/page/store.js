// Conversations, kept by the browser: IndexedDB, or memory where a browser gives the page no storage.
//
// Two windows may have one conversation open: a save that finds a newer version joins both, and every change is told
// to the other windows.

import { merged } from "./conversation.js";

const NAME = "llamacpu";
const VERSION = 1;

/** What could not be stored and why, in words for a person. */
export class StorageError extends Error {}

function inWords(error) {
  if (error?.name === "QuotaExceededError") {
    return new StorageError("The browser has no room left for conversations. Export some and delete them, then try again.");
  }
  return new StorageError(`The browser could not store the conversation: ${error?.message || error}`);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(inWords(request.error));
  });
}

function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(inWords(transaction.error));
  });
}

function summaryOf({ id, title, updated }) {
  return { id, title, updated };
}

/** The text that is searched: what was asked and answered. */
function contains(conversation, words) {
  return conversation.messages.some(({ content }) => content.toLocaleLowerCase().includes(words));
}

/** The store of this browser; `onChange(id)` hears of changes by other windows. */
export async function openStore(onChange) {
  let database;
  try {
    const opening = indexedDB.open(NAME, VERSION);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("conversations", { keyPath: "id" });
      opening.result.createObjectStore("summaries", { keyPath: "id" });
    };
    database = await done(opening);
  } catch {
    return new MemoryStore();
  }
  // A newer page in another window wants to change the layout.
  database.onversionchange = () => database.close();
  return new BrowserStore(database, onChange);
}

class BrowserStore {
  kept = true;
  #database;
  #channel = null;
  /** Saves of one conversation follow each other. */
  #saves = new Map();

  constructor(database, onChange) {
    this.#database = database;
    if (typeof BroadcastChannel === "function") {
      this.#channel = new BroadcastChannel(NAME);
      this.#channel.onmessage = ({ data }) => onChange(String(data));
    }
  }

  #begin(mode, ...stores) {
    try {
      return this.#database.transaction(stores, mode);
    } catch (error) {
      throw inWords(error);
    }
  }

  /** [{id, title, updated}], newest first. */
  async list() {
    const found = await done(this.#begin("readonly", "summaries").objectStore("summaries").getAll());
    return found.sort((a, b) => b.updated - a.updated);
  }

  /** A conversation, or undefined. */
  load(id) {
    return done(this.#begin("readonly", "conversations").objectStore("conversations").get(id));
  }

  /**
   * Store a conversation as it is now; messages that another window has stored meanwhile are put into it.
   * False where another window has deleted it.
   */
  save(conversation) {
    const before = this.#saves.get(conversation.id) ?? Promise.resolve();
    const save = before.catch(() => {}).then(() => this.#save(conversation));
    this.#saves.set(conversation.id, save);
    return save;
  }

  /** Run `write` with both stores in one transaction: all of it is stored, or nothing. */
  async #write(write) {
    const transaction = this.#begin("readwrite", "conversations", "summaries");
    const ended = finished(transaction);
    let result;
    try {
      result = await write(transaction.objectStore("conversations"), transaction.objectStore("summaries"));
    } catch (error) {
      ended.catch(() => {});
      // What cannot be stored at all raises at once and leaves the transaction open.
      if (error instanceof StorageError) throw error;
      transaction.abort();
      throw inWords(error);
    }
    await ended;
    return result;
  }

  async #save(conversation) {
    const revision = await this.#write(async (store, summaries) => {
      const stored = await done(store.get(conversation.id));
      if (!stored && conversation.revision > 0) return null;
      if (stored && stored.revision !== conversation.revision) Object.assign(conversation, merged(stored, conversation));
      const next = Math.max(stored?.revision ?? 0, conversation.revision) + 1;
      store.put({ ...conversation, revision: next });
      summaries.put(summaryOf(conversation));
      return next;
    });
    if (revision === null) return false;
    conversation.revision = revision;
    this.#channel?.postMessage(conversation.id);
    return true;
  }

  async remove(ids) {
    await this.#write((store, summaries) => {
      for (const id of ids) {
        store.delete(id);
        summaries.delete(id);
      }
    });
    for (const id of ids) this.#channel?.postMessage(id);
  }

  /** Store new conversations, all or none. */
  async add(conversations) {
    await this.#write((store, summaries) => {
      for (const conversation of conversations) {
        conversation.revision = 1;
        store.put(conversation);
        summaries.put(summaryOf(conversation));
      }
    });
    for (const { id } of conversations) this.#channel?.postMessage(id);
  }

  /** Every conversation, one at a time in memory. */
  async each(visit) {
    const request = this.#begin("readonly", "conversations").objectStore("conversations").openCursor();
    await new Promise((resolve, reject) => {
      request.onerror = () => reject(inWords(request.error));
      request.onsuccess = () => {
        if (!request.result) return resolve();
        visit(request.result.value);
        request.result.continue();
      };
    });
  }

  /** The ids of the conversations whose messages contain words. */
  async search(words) {
    const found = new Set();
    await this.each((conversation) => contains(conversation, words.toLocaleLowerCase()) && found.add(conversation.id));
    return found;
  }
}

/** The same, for as long as the page is open. */
class MemoryStore {
  kept = false;
  #conversations = new Map();

  async list() {
    return [...this.#conversations.values()].map(summaryOf).sort((a, b) => b.updated - a.updated);
  }

  async load(id) {
    return structuredClone(this.#conversations.get(id));
  }

  async save(conversation) {
    this.#conversations.set(conversation.id, structuredClone(conversation));
    return true;
  }

  async remove(ids) {
    for (const id of ids) this.#conversations.delete(id);
  }

  async add(conversations) {
    for (const conversation of conversations) await this.save(conversation);
  }

  async each(visit) {
    for (const conversation of this.#conversations.values()) visit(structuredClone(conversation));
  }

  async search(words) {
    const lower = words.toLocaleLowerCase();
    return new Set([...this.#conversations.values()].filter((item) => contains(item, lower)).map(({ id }) => id));
  }
}
