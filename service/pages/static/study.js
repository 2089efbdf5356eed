import { api, post, root } from "./api.js";
import { draw } from "./figure.js";
import { keepFresh } from "./live.js";
import { sortOnPress } from "./table.js";

const study = document.querySelector("main").dataset.study;
const front = document.getElementById("front");
const axes = document.getElementById("axes");
const frontStatus = document.getElementById("front-status");
const ratios = document.getElementById("ratios");
const ratiosStatus = document.getElementById("ratios-status");
const REQUESTED = {
  pause: "The search was requested to pause.",
  stop: "The search was requested to end.",
  resume: "The search is queued again.",
};
const actionStatus = document.getElementById("action-status");

const query = () => new URLSearchParams(new FormData(axes)).toString();

async function drawInto(element, status, path, revision) {
  try {
    await draw(element, await api(`/studies/${study}/figures/${path}`), revision);
    status.textContent = "";
    return true;
  } catch (error) {
    status.textContent = `The figure cannot be drawn: ${error.message}`;
    element.removeAttribute("aria-busy");
    return false;
  }
}
const drawFront = () => drawInto(front, frontStatus, `front?${query()}`, query());
const drawRatios = () => drawInto(ratios, ratiosStatus, "ratios");

const active = () => document.getElementById("state").dataset.active === "yes";
const state = () => document.querySelector("#state > :first-child").textContent;
let shown = state();
const refreshNow = keepFresh(active, async () => {
  if (state() !== shown) actionStatus.textContent = ""; // the requested change has happened
  shown = state();
  await drawFront();
  await drawRatios();
});

axes.addEventListener("change", async () => {
  if (!(await drawFront())) return;
  history.replaceState(null, "", `?${query()}`); // the address always names what the page shows
  await refreshNow();
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
  await refreshNow();
});

sortOnPress(document.getElementById("trials"));
await drawFront();
front.on?.("plotly_click", (event) => {
  const [number, , network] = event.points[0]?.customdata ?? [];
  if (number === undefined) return;
  const several = event.points[0].data.customdata.filter((mark) => mark[0] === number).length > 1;
  location.assign(`${root}/studies/${study}/trials/${number}${several ? `?candidate=${network}` : ""}`);
});
await drawRatios();
ratios.on?.("plotly_click", (event) => {
  const [number, place] = event.points[0]?.customdata?.[6]?.replace("trial ", "").split(".") ?? [];
  if (number !== undefined) location.assign(`${root}/studies/${study}/trials/${number}${place ? `?candidate=${place}` : ""}`);
});
