// Keeps the parts marked data-live fresh: asks for them again and swaps those that changed. Tells when it cannot.

const parser = new DOMParser();
const LONGEST_PAUSE = 10; // seconds
const QUIET_PAUSE = 20; // where nothing is expected to change by itself

export class Lost extends Error {
  constructor(status) {
    super(status ? `the service answered ${status}` : "the service cannot be reached");
    this.status = status;
  }
}

// Returns a page of this service, with its mark; its text is read only if it is asked for.
export async function page(address) {
  let response;
  try {
    response = await fetch(address, { headers: { Accept: "text/html" } });
  } catch {
    throw new Lost(0);
  }
  if (!response.ok) throw new Lost(response.status);
  return { mark: response.headers.get("ETag"), document: async () => parser.parseFromString(await response.text(), "text/html") };
}

const connection = document.getElementById("connection");
const KEPT = "What you see is the last that is known; this page goes on by itself when";

function tell(error) {
  if (connection.dataset.status === String(error.status)) return; // said already
  connection.dataset.status = error.status;
  if (error.status === 401) {
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Sign in again";
    connection.replaceChildren("You are signed out. ", link, `. ${KEPT} you are signed in, also in another tab.`);
  } else if (error.status === 404) {
    connection.textContent = "This does not exist any more. What you see is the last that is known.";
  } else if (error.status) {
    connection.textContent = `The service answers with an error (${error.status}). ${KEPT} it answers again.`;
  } else {
    connection.textContent = `The service cannot be reached. ${KEPT} it is back.`;
  }
}

function tellBack() {
  if (!connection.dataset.status) return false;
  delete connection.dataset.status;
  connection.textContent = "The service is back, and this page is up to date.";
  setTimeout(() => connection.dataset.status || connection.replaceChildren(), 5000);
  return true;
}

function renew(fresh) {
  let changed = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other) continue;
    for (const [name, value] of Object.entries(other.dataset)) {
      changed ||= part.dataset[name] !== value;
      part.dataset[name] = value;
    }
    if (part.fresh === undefined) part.fresh = part.innerHTML;
    if (part.fresh === other.innerHTML) continue;
    swap(part, other.innerHTML);
    changed = true;
  }
  return changed;
}

const FOCUSABLE = "a, button, select, input, summary, [tabindex]";
const key = (e) => e.getAttribute("href") || e.name || e.getAttribute("aria-label") || e.textContent;

// Scrolling is the reader's, so it survives; so do opened details, and the focus, where what had it is still there.
function swap(part, html) {
  const opened = [...part.querySelectorAll("details[open][id]")].map((e) => e.id);
  const left = part.querySelector(".scroll")?.scrollLeft;
  const focused = part.contains(document.activeElement) ? key(document.activeElement) : null;
  part.innerHTML = html;
  part.fresh = html;
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  const scrolled = part.querySelector(".scroll");
  if (left && scrolled) scrolled.scrollLeft = left;
  if (focused === null) return;
  [...part.querySelectorAll(FOCUSABLE)].find((e) => key(e) === focused)?.focus({ preventScroll: true });
}

// Calls changed() after each refresh that brought something new. It asks often as long as active() says that more may
// come, and not at all while nobody looks. An answer with the mark of the last one is not read again.
export function keepFresh({ active, changed = () => {}, address = () => location.href, seconds = 2 }) {
  let pause = seconds;
  let timer;
  let known;
  let queue = Promise.resolve();

  const refresh = async () => {
    const asked = address();
    try {
      const answer = await page(asked);
      const mark = answer.mark && `${asked} ${answer.mark}`;
      const news = mark && mark === known ? false : renew(await answer.document());
      known = mark;
      if (tellBack() || news) await changed();
      pause = active() ? seconds : QUIET_PAUSE;
    } catch (error) {
      if (error.status === undefined) throw error;
      tell(error);
      pause = Math.min(Math.max(pause, seconds) * 2, LONGEST_PAUSE); // asked less often until it is back
    }
  };
  // One after the other, so that an older answer never replaces a newer one.
  const alone = (task) => (queue = queue.catch(() => {}).then(task));
  const schedule = () => {
    clearTimeout(timer);
    timer = setTimeout(round, pause * 1000);
  };
  const round = async () => {
    if (document.hidden) return; // it goes on when somebody looks
    try {
      await alone(refresh);
    } finally {
      schedule();
    }
  };
  const lookAgain = () => {
    clearTimeout(timer);
    round();
  };
  document.addEventListener("visibilitychange", lookAgain);
  addEventListener("online", lookAgain);
  schedule();
  return { alone, refresh: () => alone(refresh).finally(schedule) };
}
