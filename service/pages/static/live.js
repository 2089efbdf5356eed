// Keeps the parts marked data-live fresh: asks for this very page again and swaps the parts that changed.

import { applySort } from "./table.js";

const parser = new DOMParser();

async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) return false;
  const fresh = parser.parseFromString(await response.text(), "text/html");
  let changed = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other) continue;
    part.dataset.active = other.dataset.active || "";
    if (part.fresh === undefined) part.fresh = part.innerHTML;
    if (part.fresh === other.innerHTML) continue;
    swap(part, other.innerHTML);
    changed = true;
  }
  return changed;
}

// Sorting and scrolling are the reader's, so they survive; so does the focus, where what had it is still there.
function swap(part, html) {
  const scrolled = part.querySelector(".scroll");
  const left = scrolled ? scrolled.scrollLeft : 0;
  const order = part.querySelector("[aria-sort]");
  const sort = order && { column: order.cellIndex, direction: order.getAttribute("aria-sort") };
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && (focused.getAttribute("href") || focused.textContent);
  part.innerHTML = html;
  part.fresh = html;
  if (sort) applySort(part.querySelector("table.sortable"), sort.column, sort.direction);
  if (left) part.querySelector(".scroll").scrollLeft = left;
  if (key) {
    const same = [...part.querySelectorAll("a, button")].find((e) => (e.getAttribute("href") || e.textContent) === key);
    if (same) same.focus({ preventScroll: true });
  }
}

// Calls changed() after each refresh that brought something new, as long as active() says that more may come.
export function keepFresh(active, changed, seconds = 2) {
  let pause = seconds;
  const round = async () => {
    if (!document.hidden && active()) {
      try {
        if (await refresh()) await changed();
        pause = seconds;
      } catch {
        pause = Math.min(pause * 2, 30); // the service is away; it is asked less often until it is back
      }
    }
    setTimeout(round, pause * 1000);
  };
  setTimeout(round, pause * 1000);
  return async () => {
    if (await refresh()) await changed();
  };
}
