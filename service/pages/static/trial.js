import { api, post, root } from "./api.js";
import { Chosen } from "./chosen.js";
import { draw } from "./figure.js";
import { keepFresh } from "./live.js";
import "./saving.js";

const { study, trial } = document.querySelector("main").dataset;
const path = `/studies/${study}/trials/${trial}`;
const network = () => `?candidate=${document.getElementById("splits").dataset.candidate}`; // known when the trial ends
const forms = document.getElementById("export-forms"); // not for whoever may not export
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

// A disabled bound is no entry of the form's data.
const wanted = () => [...new FormData(forms)].map(([name, value]) => `&${name}=${value === "on" ? "true" : encodeURIComponent(value)}`).join("");
const bound = () => (forms.elements.int8_max_drop.disabled = !forms.elements.int8.checked);
forms?.addEventListener("change", bound);
if (forms) bound(); // browsers keep what was chosen over a reload
forms?.addEventListener("submit", (event) => event.preventDefault());
const offer = () => forms && (forms.hidden = document.getElementById("export") === null);

const percent = (fraction) => `${(100 * fraction).toFixed(2)} %`;
const told = ({ images, top1, latency_ms: ms }) =>
  ` 8-bit: top-1 ${percent(top1.int8)} on ${images} validation images, where the float form has ${percent(top1.float32)}; ${ms.int8.toPrecision(3)} ms instead of ${ms.float32.toPrecision(3)} ms.`;

document.getElementById("export-part").addEventListener("click", async (event) => {
  if (event.target.id !== "export" || !forms.reportValidity()) return;
  event.target.disabled = true;
  try {
    const job = await finished(await post(`${path}/exports${network()}${wanted()}`));
    const link = document.getElementById("download");
    link.href = `${root}/api/v1/jobs/${job.id}/download`;
    link.hidden = false;
    status.textContent = `The export is ready.${job.int8 ? told(job.int8) : ""}`;
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
    offer();
    await drawAll();
    await showLog();
  },
});
await drawAll();
