import { send } from "./api.js";
import { draw } from "./figure.js";
import "./saving.js";

const trials = new URLSearchParams(new URLSearchParams(location.search).getAll("trial").filter((name) => name.trim()).map((name) => ["trial", name]));

async function drawInto(id, path) {
  const element = document.getElementById(id);
  if (!element) return;
  try {
    await draw(element, await (await send(`${path}?${trials}`)).json());
  } catch (error) {
    document.getElementById(`${id}-status`).textContent = `The figure cannot be drawn: ${error.message}`;
    element.removeAttribute("aria-busy");
  }
}

await drawInto("compare-splits", "/figures/compare/splits");
await drawInto("compare-history", "/figures/compare/history");
