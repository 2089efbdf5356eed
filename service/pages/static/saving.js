// Saves a figure as PNG, SVG or CSV; the file's name says which study and which figure it is of.

import { contents, plotly } from "./figure.js";

const WIDTH = 1000;

function download(href, name) {
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  link.click();
}

export const quoted = (value) => {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // no formula for a spreadsheet
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const SIGNS = new Map([["lt", "<"], ["gt", ">"], ["amp", "&"], ["quot", '"'], ["nbsp", " "]]);
const sign = (whole, hex, decimal, name) =>
  hex || decimal ? String.fromCodePoint(Math.min(hex ? parseInt(hex, 16) : Number(decimal), 0x10ffff)) : (SIGNS.get(name) ?? whole);
// A text of a figure has plotly's tags and HTML's entities; a file holds what the figure shows.
export const shown = (value) =>
  typeof value !== "string"
    ? value
    : value
        .replace(/<br\s*\/?>/gi, " ")
        .replace(/<\/?(?:a|b|em|extra|i|s|span|sub|sup|u)(?:\s[^>]*)?>/gi, "")
        .replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w+));/gi, sign);
const plain = (text) => String(text ?? "").replace(/<br>.*$/, "");

// Places on an axis with names become these names.
function reader(axis) {
  const names = new Map((axis?.tickvals || []).map((value, at) => [value, plain(axis.ticktext[at])]));
  return (value) => names.get(value) ?? value;
}

// A row for each mark: its series, both axes, and what its hover text says.
function csv({ data, layout }) {
  const rows = [["series", plain(layout.xaxis?.title?.text) || "column", plain(layout.yaxis?.title?.text) || "row", "details"]];
  for (const trace of data) {
    const xOf = reader(layout[(trace.xaxis || "x").replace("x", "xaxis")]);
    const yOf = reader(layout[(trace.yaxis || "y").replace("y", "yaxis")]);
    trace.x.forEach((x, at) => {
      const place = trace.base ? trace.base[at] + x / 2 : x; // the middle of a map's cell
      if (x === null && trace.y[at] === null) return;
      rows.push([trace.name || "", xOf(place), yOf(trace.y[at]), ...(trace.customdata?.[at] || [])]);
    });
  }
  return `${rows.map((row) => row.map((cell) => quoted(shown(cell))).join(",")).join("\r\n")}\r\n`;
}

async function save(tools, format) {
  const name = `${document.querySelector("main").dataset.name}-${tools.dataset.file}`;
  const figure = contents(document.getElementById(tools.dataset.saves));
  if (!figure) return;
  if (format === "csv") {
    const address = URL.createObjectURL(new Blob([csv(figure)], { type: "text/csv" }));
    download(address, `${name}.csv`);
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    return;
  }
  const layout = { ...figure.layout, title: { text: name, x: 0, xref: "paper" }, width: WIDTH };
  const height = layout.height || 480;
  download(await (await plotly()).toImage({ data: figure.data, layout }, { format, width: WIDTH, height, scale: 2 }), `${name}.${format}`);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-saves] button[data-format]");
  if (!button) return;
  button.disabled = true;
  try {
    await save(button.closest("[data-saves]"), button.dataset.format);
  } finally {
    button.disabled = false;
  }
});
