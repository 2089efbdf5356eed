import { api, post, root } from "./api.js";
import { draw } from "./figure.js";
import { keepFresh } from "./live.js";

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
  if (!levels.hidden) await draw(levels, await api(`${path}/figures/levels`));
}

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
keepFresh({ active, changed: drawAll });
await drawAll();
