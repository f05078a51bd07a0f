// The field where messages are written. What was not sent is kept until the window is closed.

import { byId, icon } from "./dom.js";
import { session } from "./options.js";

export class Composer {
  #hooks;
  #field = byId("prompt");
  #button = byId("send");
  #id = null;
  #writing = null;

  /** hooks: {ready(), send(text), stop(), editLast()} */
  constructor(hooks) {
    this.#hooks = hooks;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#writing) hooks.stop();
      else this.#send();
    });
    this.#field.addEventListener("input", () => {
      session.set(`draft.${this.#id}`, this.#field.value);
      this.#grow();
    });
    this.#field.addEventListener("keydown", (event) => {
      // While a word is composed (Chinese, Japanese, ...) Enter belongs to that.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.#writing) this.#send();
      } else if (event.key === "ArrowUp" && this.#field.value === "") {
        event.preventDefault();
        hooks.editLast();
      }
    });
    addEventListener("resize", () => this.#grow());
  }

  #send() {
    const text = this.#field.value.trim();
    if (text === "" || !this.#hooks.ready()) return this.focus();
    session.set(`draft.${this.#id}`, "");
    this.#field.value = "";
    this.#grow();
    this.#hooks.send(text);
  }

  /** Show the unsent text of a conversation ("new" for one without messages), and whether the button sends or stops. */
  show(id, writing) {
    if (id !== this.#id) {
      this.#id = id;
      this.#field.value = session.get(`draft.${id}`) ?? "";
      this.#grow();
    }
    if (writing === this.#writing) return;
    this.#writing = writing;
    const words = writing ? "Stop" : "Send";
    this.#button.setAttribute("aria-label", words);
    this.#button.title = words;
    this.#button.classList.toggle("stop", writing);
    this.#button.replaceChildren(icon(writing ? "stop" : "send"));
  }

  #grow() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${Math.min(this.#field.scrollHeight, innerHeight * 0.4)}px`;
  }

  focus() {
    this.#field.focus();
  }
}
