// The messages of one branch on the page. Long conversations stay quick: only the last messages are made at first, what
// has not changed is not made again, and a growing answer is drawn as often as the machine can bear.

import { branch, siblings } from "./conversation.js";
import { byId, make } from "./dom.js";
import { MessageView } from "./message.js";

const AT_ONCE = 40;
const FASTEST = 50; // milliseconds between two drawings of a growing answer
const NEAR = 80; // pixels from the end that count as the end

export class Transcript {
  #actions;
  #views = new Map();
  #shown = AT_ONCE;
  #conversation = null;
  #generation = null;
  #timer = null;
  #cost = 0;
  #atEnd = true;
  #element = byId("transcript");
  #scroller = byId("scroller");
  #earlier = make("button", { type: "button", class: "small earlier", onclick: () => this.#showEarlier() }, "Show earlier messages");

  constructor(actions) {
    this.#actions = actions;
    this.#scroller.addEventListener("scroll", () => this.#lookForEnd(), { passive: true });
    byId("latest").addEventListener("click", () => this.toEnd());
    // Pictures, code and folded parts change heights: who reads at the end stays there.
    new ResizeObserver(() => this.#atEnd && this.#jump()).observe(this.#element);
  }

  /** Show a conversation; `generation` is what writes its last message, or null. */
  show(conversation, generation) {
    if (conversation.id !== this.#conversation?.id) {
      this.#element.replaceChildren();
      this.#views.clear();
      this.#shown = AT_ONCE;
      this.#atEnd = true;
    }
    this.#conversation = conversation;
    this.#generation = generation;
    this.#draw();
  }

  /** Draw the growing answer again, soon. */
  grow() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const started = performance.now();
      const { message } = this.#generation ?? {};
      const view = message && this.#views.get(message.id);
      if (view) {
        view.show(message, { beside: siblings(this.#conversation, message), generation: this.#generation, last: true });
        if (this.#atEnd) this.#jump();
      }
      this.#cost = performance.now() - started;
    }, Math.max(FASTEST, this.#cost * 5));
  }

  #draw() {
    const messages = branch(this.#conversation);
    const hidden = Math.max(0, messages.length - this.#shown);
    const wanted = messages.slice(hidden);
    const ids = new Set(wanted.map(({ id }) => id));
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue;
      view.element.remove();
      this.#views.delete(id);
    }
    if (hidden > 0) this.#element.prepend(this.#earlier);
    else this.#earlier.remove();
    let before = hidden > 0 ? this.#earlier : null;
    for (const message of wanted) {
      let view = this.#views.get(message.id);
      if (!view) {
        view = new MessageView(message, this.#actions);
        this.#views.set(message.id, view);
      }
      const generation = this.#generation?.message.id === message.id ? this.#generation : null;
      view.show(message, { beside: siblings(this.#conversation, message), generation, last: message === wanted.at(-1) });
      const place = before ? before.nextSibling : this.#element.firstChild;
      if (place !== view.element) this.#element.insertBefore(view.element, place);
      before = view.element;
    }
    byId("empty").hidden = messages.length > 0;
    if (this.#atEnd) this.#jump();
    this.#lookForEnd();
  }

  #showEarlier() {
    const before = this.#scroller.scrollHeight - this.#scroller.scrollTop;
    this.#shown += AT_ONCE;
    this.#atEnd = false;
    const first = this.#element.querySelector("article");
    this.#draw();
    this.#scroller.scrollTop = this.#scroller.scrollHeight - before;
    first?.focus({ preventScroll: true });
  }

  #lookForEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    byId("latest").hidden = this.#atEnd;
  }

  #jump() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  toEnd() {
    this.#atEnd = true;
    this.#jump();
    byId("latest").hidden = true;
  }

  /** The view of a message that is on the page. */
  view(id) {
    return this.#views.get(id);
  }
}
