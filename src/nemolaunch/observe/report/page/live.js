// Asks the server whether the page has changed, and loads it again: not while somebody is at work in it.
(() => {
  "use strict";
  const sign = document.getElementById("live");
  const everyMs = 1000 * Number(sign.dataset.seconds);
  const QUIET_MS = 20000;
  let tag = null, touched = -QUIET_MS;
  for (const kind of ["pointerdown", "keydown", "wheel"]) {
    document.addEventListener(kind, () => { touched = performance.now(); }, {passive: true});
  }

  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/", {method: "HEAD", cache: "no-store"});
      if (!answer.ok) throw new Error(answer.statusText);
      const now = answer.headers.get("ETag");
      const changed = tag !== null && now !== tag;
      if (!changed) tag = now;
      sign.textContent = changed ? "live, new figures" : "live";
      if (changed && performance.now() - touched > QUIET_MS && !String(getSelection())) location.reload();
    } catch {
      sign.textContent = "the server has ended";
    }
  }

  look();
  setInterval(look, everyMs);
})();
