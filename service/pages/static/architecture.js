import { post, refuse, requestKeys, root } from "./api.js";
import { keepFresh } from "./live.js";

keepFresh({ active: () => document.querySelector("#trainings .state-running, #trainings .state-queued") !== null });

const form = document.getElementById("train");
const errors = document.getElementById("train-errors");

const number = (text) => (text === "" ? undefined : Number(text));
const given = (entries) => Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined && value !== ""));

function wanted() {
  const field = Object.fromEntries(new FormData(form));
  const { study, trial, candidate, architecture } = form.dataset;
  const network = study ? { study, trial: Number(trial), candidate } : { architecture };
  const images = given({ folder: field.folder, train_limit: number(field.train_limit), image_size: number(field.image_size) });
  if (!field.data && (images.folder || images.train_limit)) throw new Error("choose a data set to change its folder or number of images");
  const settings = given({ epochs: number(field.epochs), batch_size: number(field.batch_size) });
  if (!field.data && images.image_size) settings.image_size = images.image_size;
  return {
    ...network,
    ...given({ recipe: field.recipe, device: field.device, seed: number(field.seed), processes: number(field.processes) }),
    start: field.start,
    settings,
    ...(field.data ? { data: { name: field.data, ...images } } : {}),
  };
}

const keyOf = requestKeys();

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  errors.hidden = true;
  try {
    const body = JSON.stringify(wanted());
    const headers = { "Content-Type": "application/json", "Idempotency-Key": keyOf(body) };
    const made = await post("/trainings", { headers, body });
    location.assign(`${root}/trainings/${made.id}`);
  } catch (error) {
    refuse(errors, "Nothing was started:", error, "training");
  } finally {
    button.disabled = false;
  }
});
