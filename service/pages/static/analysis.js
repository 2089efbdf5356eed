// The parts of a study's page that are drawn only when they are opened: parallel coordinates, importance of parameters.

import { api } from "./api.js";

const INK = "#1f2937"; // that of the figures

// The lines of a figure of parallel coordinates by the name of their network: places on the axes.
function linesOf(data) {
  const found = new Map();
  for (const trace of data) {
    trace.customdata?.forEach(([, , name], at) => {
      if (name === null || name === undefined) return;
      if (!found.has(name)) found.set(name, []);
      found.get(name)[trace.x[at]] = trace.y[at];
    });
  }
  return found;
}

// Returns the figure with the chosen lines drawn once more, on top.
export function withChosen(figure, chosen) {
  const x = [];
  const y = [];
  for (const [name, places] of linesOf(figure.data)) {
    if (!chosen.has(name)) continue;
    x.push(...places.keys(), null);
    y.push(...places, null);
  }
  const line = { color: INK, width: 4, dash: "dot" };
  const top = { type: "scatter", mode: "lines", x, y, line, name: "chosen", hoverinfo: "skip" };
  return { data: x.length ? [...figure.data, top] : figure.data, layout: { ...figure.layout, dragmode: "select" } };
}

// The names of the lines that run through a box on each axis that it covers; null if it covers none.
export function crossing(figure, range) {
  const [[left, right], [low, high]] = [range.x, range.y].map((ends) => [...ends].sort((a, b) => a - b));
  const first = Math.ceil(left);
  const last = Math.floor(right);
  if (last < first) return null;
  const names = [];
  for (const [name, places] of linesOf(figure.data)) {
    const within = places.slice(Math.max(0, first), last + 1);
    if (within.length && within.every((place) => place !== null && place >= low && place <= high)) names.push(name);
  }
  return names;
}

const cell = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.assign(made, attributes);
  return made;
};
const percent = (share) => (100 * share).toFixed(1);

// Writes the figures of the importances as a table, and what they rest on as a caption.
export async function describeImportances(study) {
  const found = await api(`/studies/${study}/importances`);
  const table = document.getElementById("importance-table");
  const names = Object.keys(found.objectives);
  table.closest(".scroll").hidden = names.length === 0;
  document.getElementById("importance-basis").textContent = names.length
    ? `From ${found.used === found.trials ? "" : `${found.used} of `}${found.trials} complete search trials, by PED-ANOVA: the bars share out what separates the best ${Math.round(100 * found.best)} % of ` +
      "the trials from all. The line is what one of ten shuffles of the values reaches: a bar that does not pass it may be chance."
    : "";
  const head = document.createElement("tr");
  for (const text of ["Objective", "Parameter", "Share (%)", "Chance (%)", "Beyond chance"]) head.append(cell("th", text, { scope: "col" }));
  const rows = names.flatMap((name) =>
    found.objectives[name].map((share) => {
      const row = document.createElement("tr");
      row.append(
        cell("th", name, { scope: "row" }),
        cell("td", share.parameter),
        cell("td", percent(share.share), { className: "number" }),
        cell("td", percent(share.chance), { className: "number" }),
        cell("td", share.clear ? "yes" : "no"),
      );
      return row;
    }),
  );
  const [thead, tbody] = [document.createElement("thead"), document.createElement("tbody")];
  thead.append(head);
  tbody.append(...rows);
  table.replaceChildren(thead, tbody);
}
