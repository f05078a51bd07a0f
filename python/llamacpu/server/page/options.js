// The settings of a conversation, each stated once: what it is called, what it may be, what is sent.

/** A setting that is a number; left empty it is not sent, and the server's default counts. */
function numeric(name, label, hint, { min, max, whole = false }) {
  const range = max === undefined ? `at least ${min}` : `from ${min} to ${max}`;
  return {
    name, label, hint, min, max, whole,
    problem(value) {
      const right = typeof value === "number" && value >= min && (max === undefined || value <= max);
      if (right && (whole ? Number.isSafeInteger(value) : Number.isFinite(value))) return "";
      return `should be a ${whole ? "whole number" : "number"} ${range}.`;
    },
  };
}

export const SETTINGS = [
  numeric("temperature", "Temperature", "0: the likeliest token", { min: 0, max: 2 }),
  numeric("top_p", "Top P", "share of probability", { min: 0, max: 1 }),
  numeric("top_k", "Top K", "0: all tokens", { min: 0, max: 1_000_000, whole: true }),
  numeric("min_p", "Min P", "share of the likeliest", { min: 0, max: 1 }),
  numeric("repeat_penalty", "Repetition penalty", "1: none", { min: 0.01, max: 10 }),
  numeric("frequency_penalty", "Frequency penalty", "0: none", { min: -2, max: 2 }),
  numeric("presence_penalty", "Presence penalty", "0: none", { min: -2, max: 2 }),
  numeric("max_tokens", "Max tokens", "in an answer", { min: 1, max: 10_000_000, whole: true }),
  numeric("seed", "Seed", "repeats an answer", { min: 0, max: 4_294_967_295, whole: true }),
  {
    name: "stop", label: "Stop sequences", hint: "one a line, up to 4",
    problem(value) {
      const right = Array.isArray(value) && value.length <= 4 && value.every((text) => typeof text === "string" && text !== "" && text.length <= 1000);
      return right ? "" : "should be a list of up to 4 texts.";
    },
  },
];

/** Only settings that are known and right, of an object that may hold anything. */
export function rightSettings(values) {
  const right = {};
  for (const setting of SETTINGS) {
    const value = values?.[setting.name];
    if (value !== undefined && setting.problem(value) === "") right[setting.name] = value;
  }
  return right;
}

/** A small store of preferences; where the browser keeps nothing it lasts as long as the page. */
class Preferences {
  #memory = new Map();
  #storage;

  constructor(storage) {
    this.#storage = storage;
  }

  get(name) {
    try {
      return this.#storage().getItem(`llamacpu.${name}`) ?? this.#memory.get(name) ?? null;
    } catch {
      return this.#memory.get(name) ?? null;
    }
  }

  /** An empty value is forgotten. */
  set(name, value) {
    this.#memory.set(name, value || null);
    try {
      if (value) this.#storage().setItem(`llamacpu.${name}`, value);
      else this.#storage().removeItem(`llamacpu.${name}`);
    } catch {
      // It is in memory.
    }
  }
}

/** Kept by the browser. */
export const preferences = new Preferences(() => localStorage);
/** Kept until the window is closed: the API key and unsent texts. */
export const session = new Preferences(() => sessionStorage);

/** The system prompt and settings that a new conversation begins with. */
export function defaults() {
  try {
    const { system, settings } = JSON.parse(preferences.get("defaults") ?? "{}");
    return { system: typeof system === "string" ? system : "", settings: rightSettings(settings) };
  } catch {
    return { system: "", settings: {} };
  }
}

export function setDefaults({ system, settings }) {
  preferences.set("defaults", JSON.stringify({ system, settings }));
}
