// Words above the conversation that stay until they are dismissed.

import { byId, icon, make } from "./dom.js";

export const notice = {
  /** Show words that stay; `act` offers a way out. `about` names them for `hide`. */
  show(words, action, act, about = "") {
    this.about = about;
    const close = make("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => this.hide() }, icon("close"));
    byId("notice").replaceChildren(icon("warning"), make("p", {}, words));
    if (act) byId("notice").append(make("button", { type: "button", class: "small", onclick: act }, action));
    byId("notice").append(close);
  },
  hide(about = this.about) {
    if (about === this.about) byId("notice").replaceChildren();
  },
};
