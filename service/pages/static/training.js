import { api, post, root, send } from "./api.js";
import { draw } from "./figure.js";
import { keepFresh } from "./live.js";

const { training } = document.querySelector("main").dataset;
const path = `/trainings/${training}`;
const status = document.getElementById("action-status");
const figure = document.getElementById("history");

async function drawAll() {
  figure.hidden = document.querySelector("#epochs .empty") !== null;
  if (figure.hidden) figure.removeAttribute("aria-busy");
  else await draw(figure, await api(`${path}/figures/history`));
}

const active = () => document.getElementById("state").dataset.active === "yes";
const fresh = keepFresh({ active, changed: drawAll });

const SAID = { stop: "It writes a checkpoint and stops.", resume: "It waits for a worker." };

async function act(action) {
  if (action !== "delete") {
    await post(`${path}/${action}`);
    status.textContent = SAID[action];
    await fresh.refresh();
  } else if (confirm("Delete this training with its checkpoints and packages?")) {
    await send(path, { method: "DELETE" });
    location.assign(`${root}/trainings`);
  }
}

document.querySelector("main").addEventListener("click", async (event) => {
  const { action } = event.target.dataset;
  if (!action) return;
  event.target.disabled = true;
  try {
    await act(action);
  } catch (error) {
    status.textContent = error.message;
  }
  event.target.disabled = false;
});

await drawAll();
