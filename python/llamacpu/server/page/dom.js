// Small helpers for elements. Nothing here or elsewhere assigns HTML: text becomes text nodes.

/** An element: attributes (functions under "onclick" and the like become listeners; false and undefined are left out). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An icon of the sprite in index.html; whoever shows it says in words what it means. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, whose words are its tooltip and its name for screen readers. */
export function iconButton(name, words, onclick, more = {}) {
  return make("button", { type: "button", class: "quiet", "aria-label": words, title: words, onclick, ...more }, icon(name));
}

export const byId = (id) => document.getElementById(id);

/** Copy a text. Browsers have no clipboard on plain HTTP from another machine: there it goes the old way. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = make("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** Say something to screen readers, politely. */
export function announce(words) {
  const status = byId("status");
  status.textContent = "";
  // A changed text is read; the same one twice would not be.
  setTimeout(() => (status.textContent = words), 50);
}

/** Let the browser save a text as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
