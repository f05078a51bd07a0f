// Markdown of a model becomes elements. Three walls stand between its text and the page: HTML in it is shown as text,
// the elements are chosen from a short list (DOMPurify), and the page's security policy runs no inline script.

import hljs from "./vendor/highlight.min.js";
import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";
import { make } from "./dom.js";

/** Longer code is not coloured: that would hold up the page. */
const HIGHLIGHT_LIMIT = 50_000;
/** Longer code that grows is coloured again when it has grown by a quarter, and at its end. */
const GROWING_LIMIT = 4000;
/** HTML that answers use where Markdown has nothing, without attributes. */
const INLINE_HTML = /^<\/?(?:br|sub|sup|kbd|u|mark|small)\s*\/?>$/i;

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "kbd", "li", "mark", "ol",
    "p", "pre", "small", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  // What is no address is not to look like one.
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

function escaped(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]);
}

const marked = new Marked({
  gfm: true,
  renderer: {
    code({ text, lang }) {
      const language = (lang ?? "").trim().split(/\s+/)[0].toLowerCase();
      const known = hljs.getLanguage(language) && text.length <= HIGHLIGHT_LIMIT;
      const body = known ? hljs.highlight(text, { language, ignoreIllegals: true }).value : escaped(text);
      return `<pre><code title="${escaped(language)}">${body}</code></pre>`;
    },
    html({ text }) {
      return INLINE_HTML.test(text.trim()) ? text : escaped(text);
    },
    // An image would be asked of another host, which learns of it: a link leaves that to the person.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.hasAttribute("class")) {
    // The colours of code are the only classes: a text cannot dress up as a part of the page.
    const classes = [...node.classList].filter((name) => /^hljs-[\w-]+$/.test(name) || /^(?:function|class|inherited)_+$/.test(name));
    if (classes.length > 0) node.setAttribute("class", classes.join(" "));
    else node.removeAttribute("class");
  }
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

/** Elements for one block of Markdown. */
function fragmentOf(token) {
  const fragment = DOMPurify.sanitize(marked.parser([token]), ALLOWED);
  for (const pre of fragment.querySelectorAll("pre")) dressCode(pre);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = make("div", { class: "table", role: "region", "aria-label": "Table", tabindex: "0" });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

/** Code gets a line with its language and a button that copies it. */
function dressCode(pre) {
  const code = pre.querySelector("code");
  const language = code?.title ?? "";
  code?.removeAttribute("title");
  pre.setAttribute("tabindex", "0");
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const frame = make("div", { class: "code" });
  pre.replaceWith(frame);
  const button = make("button", { type: "button", class: "copy-code" }, "Copy");
  frame.append(make("div", { class: "code-head" }, make("span", {}, language || "text"), button), pre);
}

/** Show more of a block of code; what is new stays without colours at first where colouring all of it takes long. */
function growCode(block, token, unfinished) {
  const code = block.element.querySelector("code");
  const { length } = block.coloured;
  if (unfinished && length > GROWING_LIMIT && token.text.length < length * 1.25 && token.text.startsWith(block.coloured)) {
    block.tail ??= code.appendChild(document.createTextNode(""));
    block.tail.data = token.text.slice(length);
    return;
  }
  code.replaceChildren(...fragmentOf(token).querySelector("code").childNodes);
  block.coloured = token.text;
  block.tail = null;
}

/** An element that shows a growing Markdown text: what has not changed since the last time is left alone. */
export class Markdown {
  element;
  #blocks = [];
  #links = "";

  constructor(element) {
    this.element = element;
  }

  /** growing: whether more of the text will come. */
  show(text, growing = false) {
    const tokens = marked.lexer(text);
    // Where a link leads may be said, and go on, far below it.
    const links = JSON.stringify(tokens.links);
    const same = links === this.#links;
    this.#links = links;
    const wanted = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    wanted.forEach((token, index) => {
      const block = this.#blocks[index];
      const unfinished = growing && index === wanted.length - 1;
      const unchanged = block && same && block.token.raw === token.raw && block.token.type === token.type;
      if (unchanged && (unfinished || !block.tail)) return;
      if (block && block.token.type === "code" && token.type === "code" && block.token.lang === token.lang) {
        // The frame stays, and with it the focus on its button.
        growCode(block, token, unfinished);
        block.token = token;
        return;
      }
      const element = make("div", { class: "block" });
      element.append(fragmentOf(token));
      if (block) block.element.replaceWith(element);
      else this.element.append(element);
      this.#blocks[index] = { token, element, coloured: token.text, tail: null };
    });
    for (const { element } of this.#blocks.splice(wanted.length)) element.remove();
  }
}
