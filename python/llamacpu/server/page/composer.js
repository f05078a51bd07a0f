// The field where messages are written. What was not sent is kept until the window is closed.

import { byId, icon } from "./dom.js";
import { Attachments, imageFiles } from "./images.js";
import { notice } from "./notice.js";
import { session } from "./options.js";

export class Composer {
  #hooks;
  #field = byId("prompt");
  #button = byId("send");
  #id = null;
  #writing = null;
  #attachments = new Attachments(byId("attached"), (words) => notice.show(words));

  /** hooks: {ready(), send(text, images), stop(), editLast()} */
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
    this.#takeImages();
  }

  /** Images are chosen, pasted into the field, or dropped anywhere on the page. */
  #takeImages() {
    const files = byId("image-files");
    byId("attach").addEventListener("click", () => files.click());
    files.addEventListener("change", async () => {
      await this.#attachments.add(imageFiles(files.files));
      files.value = "";
      this.focus();
    });
    this.#field.addEventListener("paste", (event) => {
      const images = imageFiles(event.clipboardData?.files);
      if (images.length === 0) return;
      event.preventDefault();
      this.#attachments.add(images);
    });
    addEventListener("dragover", (event) => {
      if (event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]")) event.preventDefault();
    });
    addEventListener("drop", (event) => {
      if (document.querySelector("dialog[open]") || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.#attachments.add(imageFiles(event.dataTransfer.files));
    });
  }

  #send() {
    const text = this.#field.value.trim();
    if ((text === "" && this.#attachments.images.length === 0) || !this.#hooks.ready()) return this.focus();
    session.set(`draft.${this.#id}`, "");
    this.#field.value = "";
    this.#grow();
    this.#hooks.send(text, this.#attachments.take());
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
