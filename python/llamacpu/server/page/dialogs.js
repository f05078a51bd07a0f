// The dialogs: settings, questions, shortcuts; and the one menu.

import { byId, make } from "./dom.js";
import { preferences, session, SETTINGS } from "./options.js";

const MAC = /Mac|iPhone|iPad/.test(navigator.userAgent);
const COMMAND = MAC ? "⌘" : "Ctrl";
const SHORTCUTS = [
  [["Enter"], "Send the message"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer"],
  [["↑"], "Edit the last message, in an empty message field"],
  [[COMMAND, "Shift", "O"], "New conversation"],
  [[COMMAND, "K"], "Search conversations"],
  [[COMMAND, "B"], "Show or hide conversations"],
  [[COMMAND, "Shift", "U"], "Go to the last answer"],
  [[COMMAND, ","], "Settings"],
  [[COMMAND, "/"], "This list"],
];

for (const dialog of document.querySelectorAll("dialog")) {
  for (const button of dialog.querySelectorAll(".close")) button.addEventListener("click", () => dialog.close("no"));
  // A click beside the dialog closes it.
  dialog.addEventListener("mousedown", (event) => event.target === dialog && dialog.close("no"));
}
for (const [keys, words] of SHORTCUTS) {
  const combination = make("dd");
  keys.forEach((key, index) => combination.append(index ? " + " : "", make("kbd", {}, key)));
  byId("shortcut-list").append(make("div", {}, make("dt", {}, words), combination));
}

export function showShortcuts() {
  byId("shortcuts").showModal();
}

/** Ask a person to confirm, or for a text: resolves to true, the text, or null. */
export function ask({ title, words = "", yes, danger = false, text }) {
  const dialog = byId("ask");
  const field = byId("ask-text");
  byId("ask-title").textContent = title;
  byId("ask-words").textContent = words;
  byId("ask-words").hidden = !words;
  byId("ask-yes").textContent = yes;
  byId("ask-yes").classList.toggle("danger", danger);
  field.hidden = text === undefined;
  field.value = text ?? "";
  if (text === undefined) field.removeAttribute("aria-label");
  else field.setAttribute("aria-label", title);
  dialog.returnValue = "no";
  dialog.showModal();
  if (text === undefined) byId("ask-yes").focus();
  else field.select();
  return new Promise((resolve) => {
    byId("ask-yes").value = "yes";
    dialog.addEventListener("close", () => {
      const agreed = dialog.returnValue === "yes";
      resolve(agreed ? (text === undefined ? true : field.value.trim() || null) : null);
    }, { once: true });
  });
}

/** The theme: "light", "dark" or "" for the system's. */
export function setTheme(theme) {
  preferences.set("theme", theme);
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").setAttribute("aria-pressed", String(isDark()));
}

export function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const fields = new Map();
for (const setting of SETTINGS) {
  const id = `setting-${setting.name}`;
  const attributes = { id, "aria-describedby": `${id}-hint`, autocomplete: "off" };
  const field = setting.name === "stop"
    ? make("textarea", { ...attributes, rows: "2" })
    : make("input", { ...attributes, type: "number", min: setting.min, max: setting.max, step: setting.whole ? 1 : "any", inputmode: "decimal" });
  fields.set(setting, field);
  byId("sampling").append(make("div", { class: `field ${setting.name}` }, make("label", { for: id }, setting.label), field, make("p", { class: "hint", id: `${id}-hint` }, setting.hint)));
}

function fill({ system, settings }) {
  byId("system").value = system;
  for (const [setting, field] of fields) {
    const value = settings[setting.name];
    field.value = value === undefined ? "" : setting.name === "stop" ? value.join("\n") : value;
    field.setCustomValidity("");
  }
}

/** The values of the fields, or null where one is wrong, which is then said beside it. */
function taken() {
  const settings = {};
  for (const [setting, field] of fields) {
    field.setCustomValidity(field.validity.badInput ? "Please enter a number." : "");
    if (field.value === "" && !field.validity.badInput) continue;
    const value = setting.name === "stop" ? field.value.split("\n").filter((line) => line !== "") : field.valueAsNumber;
    const problem = setting.problem(value);
    if (problem) {
      field.setCustomValidity(`${setting.label} ${problem}`);
      field.reportValidity();
      field.addEventListener("input", () => field.setCustomValidity(""), { once: true });
      return null;
    }
    settings[setting.name] = value;
  }
  return { system: byId("system").value, settings };
}

/** Let a person change the settings; `save` gets {system, settings}. The API key has the focus where it is missing. */
export function showSettings(values, save, { key = false } = {}) {
  const dialog = byId("settings");
  fill(values);
  byId("key").value = session.get("key") ?? "";
  const theme = preferences.get("theme") ?? "";
  for (const choice of dialog.querySelectorAll('[name="theme"]')) choice.checked = choice.value === theme;
  dialog.querySelector("form").onsubmit = (event) => {
    const values = taken();
    if (values === null) return event.preventDefault();
    session.set("key", byId("key").value.trim());
    setTheme(dialog.querySelector('[name="theme"]:checked')?.value ?? "");
    save(values);
  };
  byId("reset").onclick = () => fill({ system: "", settings: {} });
  if (!dialog.open) dialog.showModal();
  if (key) byId("key").focus();
}

/** Open the menu beside a button: [{words, act, danger}]. */
export function showMenu(button, items) {
  const menu = byId("menu");
  menu.replaceChildren(...items.map(({ words, act, danger }) => make("button", {
    type: "button", role: "menuitem", tabindex: "-1", class: danger ? "danger" : undefined,
    onclick: () => {
      menu.hidePopover();
      button.focus();
      act();
    },
  }, words)));
  // Inside the part of the page that it belongs to.
  button.closest("aside, main").append(menu);
  menu.setAttribute("aria-label", button.getAttribute("aria-label"));
  menu.showPopover();
  const { right, bottom, top } = button.getBoundingClientRect();
  const below = bottom + menu.offsetHeight + 8 < innerHeight;
  menu.style.left = `${Math.max(8, Math.min(right - menu.offsetWidth, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${below ? bottom + 4 : Math.max(8, top - menu.offsetHeight - 4)}px`;
  button.setAttribute("aria-expanded", "true");
  menu.ontoggle = ({ newState }) => newState === "closed" && button.setAttribute("aria-expanded", "false");
  menu.firstChild.focus();
}

byId("menu").addEventListener("keydown", (event) => {
  const items = [...byId("menu").children];
  const at = items.indexOf(document.activeElement);
  const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 };
  if (event.key in places) items.at(places[event.key] % items.length)?.focus();
  else if (event.key === "Tab") byId("menu").hidePopover();
  else return;
  event.preventDefault();
});
