// What a button says after it has copied something.

import { announce, icon } from "./dom.js";

/** Show on the button, for a moment, whether its text was copied. */
export function copied(button, done) {
  if (!button) return;
  const before = [...button.childNodes];
  const small = button.classList.contains("copy-code");
  button.replaceChildren(small ? (done ? "Copied" : "Not copied") : icon(done ? "check" : "warning"));
  announce(done ? "Copied" : "The browser did not let the page copy");
  setTimeout(() => button.replaceChildren(...before), 1500);
}
