// Draws a figure that the service made, in the colours of this page and at the width that there is.

// plotly.js is large: a browser reads it while the service makes the figures. After a failure it is asked for again.
let loading;
export function plotly() {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = document.getElementById("plotly-script").href;
    script.addEventListener("load", () => done(window.Plotly));
    script.addEventListener("error", () => {
      loading = undefined;
      failed(new Error("plotly.js could not be loaded"));
    });
    document.head.append(script);
  });
  return loading;
}
plotly().catch(() => {}); // whoever draws says so

const DARK = {
  "#1d4ed8": "#60a5fa",
  "#b45309": "#fbbf24",
  "#b91c1c": "#f87171",
  "#6b7280": "#9ca3af",
  "#047857": "#34d399",
  "#1f2937": "#e5e7eb",
  "#e5e7eb": "#374151",
  "#f3f4f6": "#1d232c",
  white: "#14181f",
  "rgba(255,255,255,0.75)": "rgba(20,24,31,0.75)",
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();
const NAME_PIXELS = 15; // height of a name along a vertical axis

const recolour = (value) => {
  if (typeof value === "string") return DARK[value] || value;
  if (Array.isArray(value)) return value.map(recolour);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, recolour(entry)]));
  }
  return value;
};

// Lines keep their hue, and are mixed with white until they have a contrast of 3 to 1 to the page (WCAG 1.4.11).
const numbers = (color) =>
  /^#[0-9a-f]{6}$/i.test(color) ? [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)) : color.match(/[\d.]+/g).slice(0, 3).map(Number);
const luminance = (color) =>
  [0.2126, 0.7152, 0.0722].reduce((sum, weight, at) => {
    const part = numbers(color)[at] / 255;
    return sum + weight * (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  }, 0);
export const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
function lightened(color) {
  let mixed = color;
  for (let share = 0.1; share < 1 && contrast(mixed, DARK.white) < 3; share += 0.1) {
    mixed = `rgb(${numbers(color).map((part) => Math.round(part + (255 - part) * share))})`;
  }
  return mixed;
}

// A trace may bring colours for a dark page; others are lightened. Cells of maps stay, since their edges stand out.
function onDark(figure) {
  const { data, layout } = recolour(figure);
  for (const { line, marker, meta } of data) {
    const own = meta?.dark;
    if (typeof line?.color === "string" && /^(#|rgb\()/.test(line.color)) line.color = own || lightened(line.color);
    if (!marker) continue;
    if (own && !line) marker.color = own;
    else if (typeof marker.color === "string" && marker.color.startsWith("#")) marker.color = lightened(marker.color);
  }
  return { data, layout };
}

// Where it is narrow, a legend that stood beside a figure gets lines below it, without groups, which would stand in a column.
// Returns its height in pixels.
function moveBelow(data, layout, width) {
  for (const trace of data) {
    if (trace.legendgrouptitle) layout.legend.title = trace.legendgrouptitle;
    delete trace.legendgrouptitle;
    delete trace.legendgroup;
  }
  const names = data.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name.length);
  const [title, widest] = [(layout.legend.title?.text || "").length, Math.max(0, ...names)].map((length) => 6.5 * length);
  const columns = Math.max(1, Math.floor((width - 60 - title) / (widest + 45)));
  Object.assign(layout.legend, { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom" });
  return 20 * Math.ceil(names.length / columns);
}

// Of the names along a vertical axis, keeps as many as have room.
function thinNames(axis, pixels) {
  const [low, high] = axis.domain || [0, 1];
  const step = Math.ceil((axis.tickvals.length * NAME_PIXELS) / (pixels * (high - low)));
  for (const key of ["tickvals", "ticktext"]) axis[key] = axis[key]?.filter((_, at) => at % step === 0);
}

function fitted(element, figure, revision) {
  const { data, layout } = dark.matches ? onDark(figure) : structuredClone(figure);
  const narrow = element.clientWidth < 600;
  const beside = layout.legend?.orientation === "v"; // else above; where it is narrow, below
  const below = beside && narrow ? moveBelow(data, layout, element.clientWidth) : 0;
  element.classList.toggle("roomy", below > 80);
  delete layout.title; // the page has headings
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    autosize: true,
    height: element.clientHeight,
    margin: narrow ? { l: 52, r: 8, t: 48, b: 56 + below } : { l: 64, r: 16, t: 40, b: 52 },
    dragmode: element.dataset.drag || layout.dragmode || (narrow ? false : "zoom"), // touch scrolls the page
    uirevision: revision, // as long as it is the same, a refresh keeps zoom and hidden traces
  });
  const empty = data.every((trace) => trace.x.length === 0);
  for (const key of Object.keys(layout)) {
    if (!/^[xy]axis/.test(key)) continue;
    layout[key].automargin = true; // long tick labels make room for themselves
    if (key.startsWith("y") && layout[key].tickvals) thinNames(layout[key], layout.height - layout.margin.t - layout.margin.b);
    if (empty) Object.assign(layout[key], { showgrid: false, showticklabels: false, ticks: "" });
  }
  const place = beside ? {} : { x: 0, xanchor: "left" };
  layout.legend = { ...layout.legend, ...place, font: { size: narrow ? 11 : 12 } };
  return { data, layout };
}

export async function draw(element, figure, revision = "kept") {
  drawn.set(element, [figure, revision]);
  const { data, layout } = fitted(element, figure, revision);
  await (await plotly()).react(element, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  element.removeAttribute("aria-busy");
  for (const button of document.querySelectorAll(`[data-saves="${element.id}"] button`)) button.disabled = false;
}

// The figure in an element as the service made it; undefined if there is none.
export const contents = (element) => drawn.get(element)?.[0];

const again = () => drawn.forEach(([figure, revision], element) => element.isConnected && draw(element, figure, revision));
dark.addEventListener("change", again);
let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(again, 200);
});
