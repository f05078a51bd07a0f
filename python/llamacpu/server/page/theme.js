// Before the first paint, so that a dark page never flashes light: a classic script, which blocks.
"use strict";
(() => {
  try {
    const theme = localStorage.getItem("llamacpu.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is closed to the page: the system's theme it is.
  }
})();
