import { api, post, root } from "./api.js";
import { Chosen } from "./chosen.js";
import { draw } from "./figure.js";
import { keepFresh } from "./live.js";
import "./saving.js";

const { study, trial } = document.querySelector("main").dataset;
const path = `/studies/${study}/trials/${trial}`;
const network = () => `?candidate=${document.getElementById("splits").dataset.candidate}`; // known when the trial ends
const status = document.getElementById("export-status");

async function drawAll() {
  const splits = document.getElementById("splits");
  const training = document.getElementById("history");
  training.hidden = document.querySelector("#history-part .empty") !== null;
  if (splits) await draw(splits, await api(`${path}/figures/splits${network()}`));
  if (!training.hidden) await draw(training, await api(`${path}/figures/history`));
  const levels = document.getElementById("levels"); // of a search only
  if (!levels) return;
  levels.hidden = document.getElementById("levels-heading").hidden = training.hidden;
  if (!levels.hidden) await draw(levels, await api(`${path}/figures/levels?as_map=true`));
}

const log = document.getElementById("log-part");

// The newest changes of the trial; facts are the parts of an event.
async function showLog() {
  if (!log.open) return;
  const told = document.getElementById("log-status");
  try {
    const { lines, count } = await api(`${path}/log`);
    told.textContent = count ? "" : "Nothing was recorded yet.";
    document.querySelector("#log-part .scroll").hidden = count === 0;
    document.querySelector("#log tbody").replaceChildren(...lines.map(lineOf));
  } catch (error) {
    told.textContent = `The log cannot be shown: ${error.message}`;
  }
}
const written = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
function lineOf({ at, kind, facts }) {
  const row = document.createElement("tr");
  const texts = [at.slice(0, 19).replace("T", " "), kind, Object.entries(facts).map(([name, value]) => `${name}: ${written(value)}`).join("; ")];
  for (const text of texts) {
    const cell = document.createElement("td");
    cell.textContent = text;
    row.append(cell);
  }
  row.firstChild.className = "nowrap";
  row.lastChild.className = "break";
  return row;
}
log.addEventListener("toggle", showLog);

const chosen = new Chosen(study, () => {});
document.querySelector("input.choose").addEventListener("change", ({ target }) => chosen.toggle(target.value, target.checked));

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The job goes on while the service is away or busy, so that is waited for.
async function look(job) {
  try {
    return await api(`/jobs/${job.id}`);
  } catch (error) {
    if (error.status > 0 && error.status < 500) throw error;
    status.textContent = `${error.message}; asking again…`;
    await pause(3000);
    return job;
  }
}

async function finished(job) {
  while (job.state === "queued" || job.state === "running") {
    const waits = job.state === "queued" || job.expired; // whose worker has died waits for another
    status.textContent = waits ? "Waiting for a worker…" : "Exporting…";
    await pause(700);
    job = await look(job);
  }
  if (job.state !== "finished") throw new Error(job.error || `the export was ${job.state}`);
  return job;
}

document.getElementById("export-part").addEventListener("click", async (event) => {
  if (event.target.id !== "export") return;
  event.target.disabled = true;
  try {
    const job = await finished(await post(`${path}/exports${network()}`));
    const link = document.getElementById("download");
    link.href = `${root}/api/v1/jobs/${job.id}/download`;
    link.hidden = false;
    status.textContent = "The export is ready.";
    link.click();
  } catch (error) {
    status.textContent = `The export failed: ${error.message}`;
  }
  event.target.disabled = false;
});

const active = () => document.getElementById("state").dataset.active === "yes";
keepFresh({
  active,
  changed: async () => {
    await drawAll();
    await showLog();
  },
});
await drawAll();
