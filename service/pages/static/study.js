import { post, root, send } from "./api.js";
import { crossing, describeImportances, withChosen } from "./analysis.js";
import { Chosen } from "./chosen.js";
import { contents, draw, plotly } from "./figure.js";
import { keepFresh, page } from "./live.js";
import { manage, offer } from "./manage.js";
import "./saving.js";

const { study } = document.querySelector("main").dataset;
const trials = document.getElementById("trials");
const state = document.getElementById("state");
const actionStatus = document.getElementById("action-status");
const trialsStatus = document.getElementById("trials-status");
const others = document.getElementById("others-form");
const CHOICES = ["x", "y", "evaluation", "sort", "descending", "state", "kind", "color", "log_x", "log_y", "with", "by", "ratios"];
const MOST_OTHERS = 7;
const REQUESTED = {
  pause: "The search was requested to pause.",
  stop: "The search was requested to end.",
  resume: "The search is queued again.",
};

// The address of the page always names what it shows.
const chosenView = () => new URLSearchParams([...new URLSearchParams(location.search)].filter(([name, value]) => CHOICES.includes(name) && value));
let lines; // number of the table's lines if the reader asked for more than the first ones
const partsAt = (further) => {
  const query = chosenView();
  for (const [name, value] of Object.entries(further)) if (value) query.set(name, value);
  return `${root}/studies/${study}/parts?${query}`;
};

// The name of a network within its study is "3", or "3.1" for one of several.
function open(name, of = study) {
  const [number, network] = name.split(".");
  location.assign(`${root}/studies/${of}/trials/${number}${network ? `?candidate=${network}` : ""}`);
}

const figures = { front: document.getElementById("front"), ratios: document.getElementById("ratios"), parallel: document.getElementById("parallel") };
const axesQuery = () => {
  const axes = document.getElementById("axes");
  return axes ? new URLSearchParams([...new FormData(axes)].filter(([, value]) => value)) : new URLSearchParams();
};
const shownStudies = () => [study, ...new URLSearchParams(location.search).getAll("with")];
const networkOf = ({ customdata }) => ({ name: customdata[2], of: shownStudies().length > 1 ? customdata[3] : study });

// A mark leads to its trial. While trials are chosen by dragging, a press on a mark chooses nothing and opens nothing.
function openMark({ points: [point] }) {
  if (!point?.customdata || figures.front.dataset.drag) return;
  const { name, of } = networkOf(point);
  open(name, of);
}
const openCell = ({ points: [point] }) => point?.customdata && open(point.customdata[6].replace("trial ", ""));
const openLine = ({ points: [point] }) => point?.customdata?.[2] && open(point.customdata[2]);

const chosen = new Chosen(study, () => redraw());

// Chosen marks stand out; the others fade only while there are chosen ones in the figure.
function withMarks(figure) {
  const picked = figure.data.map(({ customdata }) => {
    const marks = (customdata || []).map((entry) => networkOf({ customdata: entry }));
    return marks.flatMap(({ name, of }, at) => (chosen.has(name, of) ? [at] : []));
  });
  if (picked.every((places) => places.length === 0)) return figure;
  const data = figure.data.map((trace, at) => (trace.customdata ? { ...trace, selectedpoints: picked[at], unselected: { marker: { opacity: 0.25 } } } : trace));
  return { data, layout: figure.layout };
}
const dressed = (name, figure) => (name === "front" ? withMarks(figure) : name === "parallel" ? withChosen(figure, chosen) : figure);

// Draws again what the choice of trials changes.
async function redraw() {
  for (const name of ["front", "parallel"]) {
    const element = figures[name];
    if (!element.known) continue;
    await draw(element, dressed(name, element.known), element.revision);
    if (element.layout?.selections?.length) await (await plotly()).relayout(element, { selections: [] });
  }
}

// A figure is drawn again only if it changed, and not at all while it would be empty.
async function drawInto(name, address, shown, click, revision) {
  const element = document.getElementById(name);
  const status = document.getElementById(`${name}-status`);
  if (!element.closest("details")) element.closest("figure, section[id]").hidden = !shown;
  if (!shown) return;
  try {
    const answer = await send(address);
    const text = await answer.text();
    if (element.text !== text || element.address !== address) {
      Object.assign(element, { text, address, known: JSON.parse(text), revision });
      await draw(element, dressed(name, element.known), revision);
      if (!element.listens) listen(element, click);
      element.listens = true;
    }
    status.textContent = "";
  } catch (error) {
    element.text = undefined; // the next refresh draws it, though it did not change
    status.textContent = `The figure cannot be drawn: ${error.message}`;
    element.removeAttribute("aria-busy");
  }
}

function listen(element, click) {
  element.on("plotly_click", click);
  if (element === figures.front) {
    element.on("plotly_selected", (event) => {
      if (!event?.range && !event?.lassoPoints) return; // the end of a choice
      const marks = event.points.filter((point) => point.customdata).map(networkOf);
      chosen.replace(marks.map(({ name, of }) => chosen.full(name, of)), shownStudies());
    });
  }
  if (element === figures.parallel) {
    element.on("plotly_selected", (event) => {
      const names = event?.range && crossing(element.known, event.range);
      if (names) chosen.replace(names.map((name) => chosen.full(name)), [study]);
    });
  }
}

const figurePath = (name) => `/studies/${study}/figures/${name}`;
const opened = (name) => document.getElementById(`${name}-part`).open;

async function drawFront() {
  const query = axesQuery();
  const [of, view] = [shownStudies(), new URLSearchParams(location.search)];
  if (of.length > 1) {
    query.delete("color");
    for (const one of of) query.append("study", one);
    if (view.get("by")) query.set("by", view.get("by"));
  }
  const zoomed = new URLSearchParams(query); // which colours are shown does not move the axes
  zoomed.delete("color");
  await drawInto("front", of.length > 1 ? `/figures/fronts?${query}` : `${figurePath("front")}?${query}`, state.dataset.plotted !== "0", openMark, `${zoomed}`);
}

async function drawRatios() {
  const query = axesQuery();
  for (const name of ["color", "log_x", "log_y"]) query.delete(name);
  const all = document.getElementById("ratios-of").value === "all";
  await drawInto("ratios", all ? figurePath("ratios") : `${figurePath("ratios")}?front=true&${query}`, state.dataset.learned !== "0", openCell, String(all));
}

async function drawHypervolume() {
  const openGrowth = ({ points: [point] }) => point?.customdata && open(String(point.customdata[0]));
  if (opened("hypervolume")) await drawInto("hypervolume", figurePath("hypervolume"), true, openGrowth, "kept");
}

async function drawParallel() {
  const color = document.getElementById("parallel-color").value;
  if (opened("parallel")) await drawInto("parallel", `${figurePath("parallel")}?color=${color}`, true, openLine, "kept");
}

async function drawImportance() {
  if (!opened("importance")) return;
  await drawInto("importance", figurePath("importance"), true, () => {}, "kept");
  try {
    await describeImportances(study);
  } catch (error) {
    document.getElementById("importance-status").textContent = `The table cannot be shown: ${error.message}`;
  }
}

async function drawAll() {
  document.getElementById("analysis").hidden = state.dataset.learned === "0";
  await drawFront();
  await drawRatios();
  await drawHypervolume();
  await drawParallel();
  await drawImportance();
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
    chosen.show(); // in the lines of the table, which are new
    await drawAll();
  },
});

async function choose(changes) {
  const query = chosenView();
  for (const [name, values] of Object.entries(changes)) {
    query.delete(name);
    for (const value of [values].flat()) if (value) query.append(name, value);
  }
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  await live.refresh();
}

// The values of a form by name; of a box that is not ticked, none.
const fieldsOf = (form) => Object.fromEntries([...form.elements].filter((e) => e.name).map((e) => [e.name, new FormData(form).getAll(e.name)]));

document.getElementById("axes-part").addEventListener("change", (event) => choose(fieldsOf(event.target.form)));
document.getElementById("filter-part").addEventListener("change", (event) => {
  lines = undefined;
  return choose(fieldsOf(event.target.form));
});
others?.addEventListener("change", async () => {
  const full = others.querySelectorAll("[name=with]:checked").length >= MOST_OTHERS;
  for (const box of others.querySelectorAll("[name=with]:not(:checked)")) box.disabled = full;
  await choose(fieldsOf(others));
  await drawFront();
});
document.getElementById("ratios-of").addEventListener("change", async (event) => {
  await choose({ ratios: event.target.value === "all" && "all" });
  await drawRatios();
});
document.getElementById("parallel-color").addEventListener("change", drawParallel);
document.getElementById("hypervolume-part").addEventListener("toggle", drawHypervolume);
document.getElementById("parallel-part").addEventListener("toggle", drawParallel);
document.getElementById("importance-part").addEventListener("toggle", drawImportance);
document.getElementById("drag").addEventListener("change", async (event) => {
  figures.front.dataset.drag = event.target.value === "zoom" ? "" : event.target.value;
  if (figures.front.layout) await (await plotly()).relayout(figures.front, { dragmode: event.target.value });
});
trials.addEventListener("change", (event) => {
  if (event.target.matches("input.choose")) chosen.toggle(event.target.value, event.target.checked);
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
    chosen.show();
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
