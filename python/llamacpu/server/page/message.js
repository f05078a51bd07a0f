// One message on the page: its text, what can be done with it, and what is known of it.

import { icon, iconButton, make } from "./dom.js";
import { row } from "./images.js";
import { Markdown } from "./markdown.js";

const ENDINGS = {
  stopped: "stopped",
  length: "token limit reached",
  filtered: "withheld by the server's guard",
};

function speedOf(speed) {
  return `${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`;
}

export class MessageView {
  element;
  #message = null;
  #actions;
  #key = "";
  #text = make("div", { class: "text" });
  #foot = make("div", { class: "foot" });
  #problem = null;
  #waiting = null;
  #reasoning = null;
  #markdown = null;
  #editor = null;
  #images = null;

  /** actions: {copy, edit, retry, resume, remove, choose}, each called with the message. */
  constructor(message, actions) {
    this.#actions = actions;
    const own = message.role === "user";
    const heading = make("h2", { class: "visually-hidden" }, own ? "You" : message.model || "Answer");
    this.element = make("article", { class: `message ${message.role}`, tabindex: "-1" }, heading, this.#text, this.#foot);
    if (!own) this.#markdown = new Markdown(this.#text);
    this.#text.classList.toggle("markdown", !own);
  }

  /**
   * Show a message as it is now.
   *
   * beside      the messages that stand at its place in all branches
   * generation  what writes it, or null
   */
  show(message, { beside, generation, last }) {
    this.#message = message;
    // A message that nobody here writes was left in the middle.
    const status = message.status === "writing" && !generation ? "lost" : message.status;
    this.element.classList.toggle("last", last);
    this.element.setAttribute("aria-busy", String(status === "writing"));
    const key = [message.changed, status, beside.length, beside.indexOf(message), message.content.length, last].join(" ");
    if (key === this.#key && status !== "writing") return;
    this.#key = key;
    if (this.#markdown) this.#showAnswer(message, status, generation);
    else this.#showOwn(message);
    const keep = this.#foot.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.#foot.replaceChildren(...this.#footOf(message, status, beside, generation));
    if (keep) this.#foot.querySelector(`[aria-label="${CSS.escape(keep)}"]`)?.focus();
  }

  #showOwn(message) {
    this.#text.textContent = message.content;
    this.#images?.remove();
    this.#images = null;
    if (!(message.images?.length > 0)) return;
    this.#images = make("div", { class: "pictures" }, ...row(message.images));
    this.#text.before(this.#images);
  }

  #showAnswer(message, status, generation) {
    this.#showReasoning(message, status);
    this.#markdown.show(message.content, status === "writing");
    const waiting = status === "writing" && generation.waiting;
    if (waiting && !this.#waiting) {
      this.#waiting = make("p", { class: "waiting" }, make("span", { class: "pulse", "aria-hidden": "true" }), make("span"));
      this.#text.after(this.#waiting);
    } else if (!waiting) {
      this.#waiting?.remove();
      this.#waiting = null;
    }
    if (waiting) {
      const seconds = Math.floor((performance.now() - generation.started) / 1000);
      this.#waiting.lastChild.textContent = seconds < 2 ? generation.doing : `${generation.doing} ${seconds} s`;
    }
    this.#problem?.remove();
    this.#problem = null;
    if (status === "failed" || status === "lost") {
      const words = message.error ?? "This answer was not finished: the page was closed, or another window is still writing it.";
      const kept = message.content ? " What had been written is kept." : "";
      this.#problem = make("div", { class: "problem" }, icon("warning"), make("p", {}, words + kept));
      this.#problem.append(this.#button("Retry", "retry"));
      if (message.content) this.#problem.append(this.#button("Continue", "resume"));
      this.#foot.before(this.#problem);
    }
  }

  #showReasoning(message, status) {
    if (!message.reasoning) return;
    if (!this.#reasoning) {
      const text = make("div", { class: "markdown" });
      const summary = make("summary");
      const details = make("details", { class: "reasoning" }, summary, text);
      this.#reasoning = { summary, details, text, markdown: new Markdown(text) };
      // What is folded away is not rendered.
      details.addEventListener("toggle", () => details.open && this.#reasoning.markdown.show(this.#message.reasoning));
      this.#text.before(details);
    }
    const { summary, details, markdown } = this.#reasoning;
    const thinking = status === "writing" && !message.content;
    const seconds = Math.round(message.thought ?? 0);
    const words = thinking ? "Thinking…" : seconds > 0 ? `Thought for ${seconds} ${seconds === 1 ? "second" : "seconds"}` : "Thoughts";
    if (summary.textContent !== words) summary.textContent = words;
    if (details.open) markdown.show(message.reasoning, thinking);
  }

  #footOf(message, status, beside, generation) {
    if (status === "writing") {
      const rate = generation.rate;
      return rate ? [make("span", { class: "facts" }, speedOf(rate))] : [];
    }
    const parts = message.role === "assistant" ? [this.#facts(message, status)] : [];
    if (beside.length > 1) {
      const index = beside.indexOf(message);
      const go = (step, name, words) =>
        iconButton(name, words, () => this.#actions.choose(beside[index + step]), { disabled: !beside[index + step] });
      parts.push(make("span", { class: "versions", role: "group", "aria-label": "Versions" },
        go(-1, "left", "Earlier version"), make("span", {}, `${index + 1} / ${beside.length}`), go(1, "right", "Later version")));
    }
    const tools = make("span", { class: "tools" });
    if (message.content) tools.append(this.#tool("copy", "Copy"), this.#tool("edit", "Edit"));
    if (message.role === "assistant" && status !== "failed" && status !== "lost") tools.append(this.#tool("retry", "Retry"));
    tools.append(this.#tool("delete", "Delete", "remove"));
    if (message.content && (status === "stopped" || status === "length")) parts.push(this.#button("Continue", "resume"));
    parts.push(tools);
    return parts;
  }

  /** What is known of an answer, in a line. */
  #facts(message, status) {
    const facts = [message.model, ENDINGS[status]].filter(Boolean);
    if (message.usage?.answer) facts.push(`${message.usage.answer.toLocaleString("en")} tokens`);
    if (message.speed) facts.push(speedOf(message.speed));
    const cached = message.usage?.cached;
    const prompt = message.usage && `Prompt of ${message.usage.prompt.toLocaleString("en")} tokens`;
    const title = prompt && (cached ? `${prompt}, ${cached.toLocaleString("en")} of them from the cache` : prompt);
    return make("span", { class: "facts", title }, facts.join(" · "));
  }

  #tool(name, words, action = name) {
    return iconButton(name, words, (event) => this.#act(action, event));
  }

  #button(words, action) {
    return make("button", { type: "button", class: "small", onclick: (event) => this.#act(action, event) }, words);
  }

  #act(action, event) {
    if (action === "edit") this.edit();
    else this.#actions[action](this.#message, event.currentTarget);
  }

  /** Put a field in the place of the text. */
  edit() {
    if (this.#editor) return;
    const message = this.#message;
    const own = message.role === "user";
    const area = make("textarea", { rows: "3", "aria-label": own ? "Edit message" : "Edit answer" });
    area.value = message.content;
    const save = () => {
      const text = area.value;
      if (own && text.trim() === "") return area.focus();
      this.#leaveEditor();
      if (text !== message.content) this.#actions.edit(message, text);
    };
    area.addEventListener("keydown", (event) => {
      const enter = event.key === "Enter" && !event.isComposing;
      if (event.key === "Escape") this.#leaveEditor();
      else if (enter && (event.ctrlKey || event.metaKey || (own && !event.shiftKey))) save();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.#editor = make("div", { class: "editor" }, area, make("div", { class: "row" },
      make("button", { type: "button", onclick: () => this.#leaveEditor() }, "Cancel"),
      make("button", { type: "button", class: "primary", onclick: save }, own ? "Send" : "Save")));
    this.element.classList.add("editing");
    this.#text.after(this.#editor);
    area.style.height = `${Math.min(area.scrollHeight + 4, innerHeight * 0.6)}px`;
    area.focus();
  }

  #leaveEditor() {
    this.#editor.remove();
    this.#editor = null;
    this.element.classList.remove("editing");
    this.#foot.querySelector('[aria-label="Edit"]')?.focus();
  }
}
