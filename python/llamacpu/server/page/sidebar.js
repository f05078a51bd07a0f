// The list of conversations: by day, searched by title and by what was said.

import { byId, iconButton, make } from "./dom.js";

const narrow = matchMedia("(max-width: 800px)");
const DAY = 24 * 60 * 60 * 1000;

function dayOf(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY) return "Yesterday";
  if (time >= midnight - 7 * DAY) return "Last seven days";
  return new Intl.DateTimeFormat("en", { month: "long", year: "numeric" }).format(time);
}

export class Sidebar {
  #hooks;
  #store;
  #summaries = [];
  #current = null;
  #writing = new Set();
  #search = byId("search");
  #searches = 0;
  #timer = null;

  /** hooks: {open(id), options(button, summary), failed(error)} */
  constructor(store, hooks) {
    this.#store = store;
    this.#hooks = hooks;
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#draw(), 150);
    });
    this.#search.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.#search.value === "") return;
      this.#search.value = "";
      event.stopPropagation();
      this.#draw();
    });
    byId("sidebar-open").addEventListener("click", () => this.toggle(true));
    byId("sidebar-close").addEventListener("click", () => this.toggle(false));
    byId("backdrop").addEventListener("click", () => this.toggle(false));
    narrow.addEventListener("change", () => this.#arrange(!narrow.matches));
    this.#arrange(!narrow.matches);
  }

  /** Read the list again. */
  async refresh({ current, writing }) {
    this.#current = current;
    this.#writing = writing;
    try {
      this.#summaries = await this.#store.list();
    } catch (error) {
      this.#hooks.failed(error);
    }
    await this.#draw();
  }

  async #draw() {
    const number = ++this.#searches;
    const words = this.#search.value.trim().toLocaleLowerCase();
    let found = this.#summaries;
    if (words) {
      const inside = await this.#store.search(words).catch(() => new Set());
      if (number !== this.#searches) return;
      found = found.filter(({ id, title }) => title.toLocaleLowerCase().includes(words) || inside.has(id));
    }
    const list = byId("list");
    const focused = list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
    const groups = new Map();
    for (const summary of found) {
      const day = words ? "Found" : dayOf(summary.updated);
      if (!groups.has(day)) groups.set(day, []);
      groups.get(day).push(this.#item(summary));
    }
    list.replaceChildren(...[...groups].map(([day, items]) => make("section", {}, make("h2", {}, day), make("ul", {}, ...items))));
    if (found.length === 0) list.append(make("p", { class: "hint" }, words ? "Nothing found." : "No conversations yet."));
    if (focused) list.querySelector(`[data-id="${CSS.escape(focused)}"] .open`)?.focus();
  }

  #item(summary) {
    const { id, title } = summary;
    const open = make("button", { type: "button", class: "open", "aria-current": id === this.#current ? "page" : undefined, title, onclick: () => this.#hooks.open(id) }, title);
    if (this.#writing.has(id)) open.append(make("span", { class: "pulse" }, make("span", { class: "visually-hidden" }, " (answering)")));
    const more = iconButton("more", `Options of ${title}`, () => this.#hooks.options(more, summary), { "aria-haspopup": "menu" });
    return make("li", { "data-id": id }, open, more);
  }

  /** Open or close it; on a narrow page it lies over the conversation, which is then out of reach. */
  toggle(open = !document.body.classList.contains("with-sidebar")) {
    this.#arrange(open);
    if (open) this.#search.focus();
    else byId("sidebar-open").focus();
  }

  /** Close it where it lies over the conversation. */
  leave() {
    if (narrow.matches) this.#arrange(false);
  }

  get covers() {
    return narrow.matches && document.body.classList.contains("with-sidebar");
  }

  #arrange(open) {
    document.body.classList.toggle("with-sidebar", open);
    byId("sidebar").inert = !open;
    byId("main").inert = open && narrow.matches;
    byId("sidebar-open").setAttribute("aria-expanded", String(open));
  }

  find() {
    this.#arrange(true);
    this.#search.focus();
    this.#search.select();
  }
}
