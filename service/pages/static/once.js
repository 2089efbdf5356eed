// A form that is sent twice by a double click is sent once: the second answer would hide the first one's secret.
// It can be sent again when the page is shown again, when the browser gives up (its Stop button, a lost connection),
// and after a while, for browsers that tell nothing of that.
const PATIENCE = 10_000; // milliseconds
const again = () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
};
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  const now = performance.now();
  if (now - Number(form.dataset.sent ?? -PATIENCE) < PATIENCE) event.preventDefault();
  else form.dataset.sent = String(now);
});
addEventListener("pageshow", again);
globalThis.navigation?.addEventListener("navigateerror", again);
