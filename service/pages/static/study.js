import { post, root, send } from "./api.js";
import { draw } from "./figure.js";
import { keepFresh, page } from "./live.js";
import { manage, offer } from "./manage.js";

const study = document.querySelector("main").dataset.study;
const trials = document.getElementById("trials");
const state = document.getElementById("state");
const actionStatus = document.getElementById("action-status");
const trialsStatus = document.getElementById("trials-status");
const CHOICES = ["x", "y", "evaluation", "sort", "descending", "state", "kind"];
const REQUESTED = {
  pause: "The search was requested to pause.",
  stop: "The search was requested to end.",
  resume: "The search is queued again.",
};

// The address of the page always names what it shows.
const chosen = () => {
  const all = new URLSearchParams(location.search);
  return new URLSearchParams(CHOICES.filter((name) => all.get(name)).map((name) => [name, all.get(name)]));
};
let lines; // number of the table's lines if the reader asked for more than the first ones
const partsAt = (further) => {
  const query = chosen();
  for (const [name, value] of Object.entries(further)) if (value) query.set(name, value);
  return `${root}/studies/${study}/parts?${query}`;
};

function open(number, network) {
  location.assign(`${root}/studies/${study}/trials/${number}${network ? `?candidate=${network}` : ""}`);
}
function openMark({ points: [point] }) {
  const [number, , network] = point?.customdata ?? [];
  if (number === undefined) return;
  const several = point.data.customdata.filter((mark) => mark[0] === number).length > 1;
  open(number, several && network);
}
function openCell({ points: [point] }) {
  const [number, place] = point?.customdata?.[6]?.replace("trial ", "").split(".") ?? [];
  if (number !== undefined) open(number, place);
}

// A figure is drawn again only if it changed, and not at all while it would be empty.
async function drawInto(name, path, shown, click, revision) {
  const element = document.getElementById(name);
  const status = document.getElementById(`${name}-status`);
  element.closest("figure, section[id]").hidden = !shown;
  if (!shown) return;
  try {
    const answer = await send(`/studies/${study}/figures/${path}`);
    const mark = `${path} ${answer.headers.get("ETag")}`;
    if (element.mark !== mark) await draw(element, await answer.json(), revision);
    if (!element.mark) element.on?.("plotly_click", click);
    element.mark = mark;
    status.textContent = "";
  } catch (error) {
    status.textContent = `The figure cannot be drawn: ${error.message}`;
    element.removeAttribute("aria-busy");
  }
}

async function drawAll() {
  const axes = document.getElementById("axes");
  const query = axes ? new URLSearchParams(new FormData(axes)).toString() : "";
  await drawInto("front", `front?${query}`, state.dataset.plotted !== "0", openMark, query);
  await drawInto("ratios", "ratios", state.dataset.learned !== "0", openCell);
}

const stateName = () => state.firstElementChild.textContent;
let shownState = stateName();
const live = keepFresh({
  active: () => state.dataset.active === "yes",
  address: () => partsAt({ limit: lines }),
  changed: async () => {
    if (stateName() !== shownState) actionStatus.textContent = ""; // the requested change has happened
    shownState = stateName();
    offer();
    await drawAll();
  },
});

async function choose(changes) {
  const query = chosen();
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  await live.refresh();
}

document.getElementById("axes-part").addEventListener("change", (event) => choose(Object.fromEntries(new FormData(event.target.form))));
document.getElementById("filter-part").addEventListener("change", (event) => {
  lines = undefined;
  return choose(Object.fromEntries(new FormData(event.target.form)));
});

async function more(button) {
  const table = trials.querySelector("table");
  const most = Number(trials.dataset.most);
  const known = Number(table.dataset.entries);
  button.disabled = true;
  try {
    const answer = await page(partsAt({ after: table.dataset.after, limit: Math.min(known, most - known) })); // twice as many
    const next = (await answer.document()).querySelector("#trials table");
    const added = [...next.tBodies[0].rows];
    lines = known + Number(next.dataset.entries);
    table.tBodies[0].append(...added);
    Object.assign(table.dataset, { after: next.dataset.after, entries: lines });
    table.querySelector(".entries").textContent = lines;
    trialsStatus.textContent = "";
    if (!next.dataset.after || lines >= most) {
      added[0].querySelector("a").focus({ preventScroll: true });
      button.remove();
      if (next.dataset.after) trialsStatus.textContent = `The table lists ${most} lines at most; sort or filter it, or download all.`;
    }
  } catch (error) {
    trialsStatus.textContent = `No more trials can be shown: ${error.message}.`;
  }
  button.disabled = false;
}

trials.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.id === "more") return live.alone(() => more(button));
  if (!button?.matches(".sort")) return undefined;
  lines = undefined;
  trialsStatus.textContent = "";
  return choose({ sort: button.dataset.sort, descending: button.dataset.descending && "true" });
});

document.getElementById("actions").addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  button.disabled = true;
  try {
    await post(`/studies/${study}/${button.dataset.action}`);
    actionStatus.textContent = REQUESTED[button.dataset.action];
  } catch (error) {
    actionStatus.textContent = error.message;
  }
  button.disabled = false;
  await live.refresh();
});

manage(() => live.refresh());
await drawAll();
