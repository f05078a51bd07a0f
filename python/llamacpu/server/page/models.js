// The choice of a model.

import { models as offered } from "./api.js";
import { byId, make } from "./dom.js";
import { preferences } from "./options.js";

export class Models {
  #hooks;
  #list = [];
  #select = byId("model");
  #loading = null;

  /** hooks: {chosen(id), loaded(), failed(error)} */
  constructor(hooks) {
    this.#hooks = hooks;
    this.#select.disabled = true;
    this.#select.addEventListener("change", () => {
      preferences.set("model", this.#select.value);
      hooks.chosen(this.#select.value);
    });
    // Files come and go while the page is open.
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.load({ quiet: true }));
  }

  /** Ask the server again; `quiet` says nothing where that fails. */
  load({ quiet = false } = {}) {
    this.#loading ??= this.#load(quiet).finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #load(quiet) {
    try {
      this.#list = await offered();
    } catch (error) {
      if (!quiet) this.#hooks.failed(error);
      return;
    }
    this.#draw(this.#select.value);
    this.#hooks.loaded();
  }

  failed(error) {
    this.#hooks.failed(error);
  }

  #draw(wanted) {
    const options = this.#list.map(({ id }) => make("option", { value: id }, id));
    if (options.length === 0) options.push(make("option", { value: "" }, "No model"));
    this.#select.replaceChildren(...options);
    this.#select.disabled = this.#list.length < 1;
    this.show(wanted);
  }

  /** Show the model of a conversation: its own, else the one chosen last, else the first. */
  show(wanted) {
    const ids = this.#list.map(({ id }) => id);
    this.#wanted = wanted || this.#wanted;
    const id = [wanted, this.#wanted, preferences.get("model")].find((name) => ids.includes(name)) ?? ids[0] ?? "";
    this.#select.value = id;
    this.#select.title = id;
  }

  #wanted = "";

  /** The chosen model, "" while none is known. */
  get current() {
    return this.#select.value;
  }

  /** Its context in tokens, or null. */
  get context() {
    return this.#list.find(({ id }) => id === this.current)?.context ?? null;
  }
}
