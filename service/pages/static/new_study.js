// The form and the YAML of one definition follow each other. The text is what counts: the service changes single values
// in it, and checks it while it is written.
import { api, post, refuse, requestKeys, root } from "./api.js";

const text = document.getElementById("definition");
const lines = document.getElementById("lines");
const faultList = document.getElementById("faults");
const checkStatus = document.getElementById("check-status");
const formStatus = document.getElementById("form-status");
const launchErrors = document.getElementById("launch-errors");
const fields = [...document.querySelectorAll("[data-key]")];
const TYPING = 350; // milliseconds without a key before a text is checked
const RESTING = 900; // and before its data and targets are
let pending; // what stops an older check
let checkTimer;
let dataTimer;
let last; // values of the newest text that was YAML
let usual = {}; // values with all defaults of the newest valid text

// ---- values of the form ----

const get = (object, key) => key.split(".").reduce((value, name) => (value == null ? undefined : value[name]), object);
const isRange = (field) => field.dataset.kind === "range";
const control = (field) => field.querySelector("input, select");
const part = (field, name) => field.querySelector(`[data-part=${name}]`);
const number = (shown) => (/^[-+]?[0-9.]+(e[-+]?[0-9]+)?$/i.test(shown) && Number.isFinite(Number(shown)) ? Number(shown) : shown);

function shown(value) {
  if (value === undefined || value === null) return "";
  return Array.isArray(value) ? value.map(String).join(", ") : String(value);
}

function fillRange(field, value) {
  const [low, high, spread] = ["low", "high", "spread"].map((name) => part(field, name));
  const kind = value !== null && typeof value === "object" ? Object.keys(value)[0] : "value";
  const bounds = ["log_uniform", "uniform"].includes(kind) && Array.isArray(value[kind]) && value[kind].length === 2 ? value[kind] : null;
  const other = !bounds && (kind !== "value" || value === undefined);
  spread.value = bounds ? kind : other ? "other" : "value";
  low.value = bounds ? bounds[0] : other ? "" : shown(value);
  high.value = bounds ? bounds[1] : "";
  high.closest("label").hidden = !bounds;
  low.disabled = high.disabled = other;
}

function fill(field) {
  const given = get(last, field.dataset.key);
  const otherwise = get(usual, field.dataset.key);
  if (isRange(field)) {
    fillRange(field, given ?? otherwise);
    return;
  }
  const input = control(field);
  if (input.tagName === "SELECT") {
    const value = shown(given ?? otherwise);
    const known = [...input.options].some((option) => option.value === value);
    input.querySelector("[data-other]")?.remove();
    if (!known && value !== "") {
      const option = new Option(value, value);
      option.dataset.other = "";
      input.add(option);
    }
    input.value = value;
  } else {
    input.value = shown(given);
    input.placeholder = given === undefined ? shown(otherwise) : "";
  }
}

function fillForm() {
  const written = last;
  const method = shown(written.method) || "gates";
  const converted = ["timm", "torchvision", "installed"].find((source) => written.model?.[source]);
  for (const field of fields) {
    const held = field.contains(document.activeElement) && document.activeElement.tagName !== "SELECT";
    if (!held && !field.changes) fill(field);
    field.hidden = !field.dataset.methods.split(" ").includes(method);
    if (field.dataset.key === "model.name") {
      const select = control(field);
      select.disabled = Boolean(converted);
      select.querySelector("[data-other]")?.remove();
      if (converted) {
        const option = new Option(`${converted}: ${written.model[converted]}`, "");
        option.dataset.other = "";
        select.add(option);
        select.value = "";
      }
    }
  }
}

function valueOf(field) {
  if (isRange(field)) {
    const [low, high, spread] = ["low", "high", "spread"].map((name) => part(field, name).value.trim());
    if (low === "" && high === "") return null;
    if (spread === "value") return number(low);
    return { [spread]: [number(low), number(high === "" ? low : high)] };
  }
  const value = control(field).value.trim();
  if (value === "") return null;
  if (field.dataset.kind === "list") return value.split(",").map((entry) => number(entry.trim())).filter((entry) => entry !== "");
  return ["whole", "real"].includes(field.dataset.kind) ? number(value) : value;
}

// A key whose removal leaves a section that means nothing alone takes the section with it.
function changesOf(field) {
  const key = field.dataset.key;
  const value = valueOf(field);
  if (key === "sweep.early_stopping.method" && value === null) return { "sweep.early_stopping": null };
  if (key === "name" && value === null) return { name: "" };
  return { [key]: value };
}

// ---- the form changes the text ----

let edits = Promise.resolve();

async function edit(field) {
  const changes = changesOf(field);
  for (;;) {
    const before = text.value;
    const answer = await api("/definitions/edit", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: before, changes }),
    });
    if (text.value !== before) continue; // somebody wrote meanwhile: the change is made in the new text
    const place = text.scrollTop;
    text.value = answer.text;
    text.scrollTop = place;
    return;
  }
}

function change(field) {
  clearTimeout(field.timer);
  clearTimeout(checkTimer);
  const made = field.changes;
  edits = edits.then(() => edit(field)).finally(() => {
    if (field.changes === made) field.changes = 0; // else there is a newer one
  }).then(
    () => {
      formStatus.hidden = true;
      return check();
    },
    (error) => {
      formStatus.textContent = `The form cannot change the YAML: ${error.message}`;
      formStatus.hidden = false;
    },
  );
}

// ---- the text is checked ----

function mark(faulty) {
  const count = text.value.split("\n").length;
  const rows = Array.from({ length: count }, (_, index) => {
    const row = document.createElement("span");
    row.textContent = `${index + 1}\n`;
    if (faulty.has(index + 1)) row.className = "faulty";
    return row;
  });
  lines.replaceChildren(...rows);
  lines.scrollTop = text.scrollTop;
}

function goTo(line) {
  const rows = text.value.split("\n");
  const start = rows.slice(0, line - 1).reduce((sum, row) => sum + row.length + 1, 0);
  text.focus();
  text.setSelectionRange(start, start + rows[line - 1].length);
  text.scrollTop = (text.scrollHeight / rows.length) * Math.max(0, line - 4);
}

// The field of a fault: its own, or the first one below it.
function fieldOf(key) {
  const own = fields.filter((field) => !field.hidden);
  return (
    own.find((field) => key === field.dataset.key || key.startsWith(`${field.dataset.key}.`)) ||
    own.find((field) => key && field.dataset.key.startsWith(`${key}.`))
  );
}

function showFaults(faults) {
  const texts = new Map();
  const items = faults.map((fault) => {
    const field = fieldOf(fault.key);
    if (field) texts.set(field, [...(texts.get(field) ?? []), fault.text]);
    const item = document.createElement("li");
    if (fault.line) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "line";
      button.textContent = `line ${fault.line}`;
      button.addEventListener("click", () => goTo(fault.line));
      item.append(button, " ");
    }
    item.append(fault.key ? `${fault.key}: ${fault.text}` : fault.text);
    return item;
  });
  const list = document.createElement("ul");
  list.append(...items);
  faultList.replaceChildren(list);
  faultList.hidden = !items.length;
  for (const field of fields) {
    const note = field.querySelector(".fault");
    note.textContent = (texts.get(field) ?? []).join("; ");
    note.hidden = !texts.has(field);
    for (const input of field.querySelectorAll("input, select")) {
      texts.has(field) ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid");
    }
  }
  faults.length ? text.setAttribute("aria-invalid", "true") : text.removeAttribute("aria-invalid");
  mark(new Set(faults.map((fault) => fault.line)));
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toPrecision(2)} h`;
}

function fact(name, value) {
  const pair = document.createElement("div");
  const [title, shownValue] = [document.createElement("dt"), document.createElement("dd")];
  title.textContent = name;
  shownValue.textContent = value;
  pair.append(title, shownValue);
  return pair;
}

function showEstimate(found, complete) {
  document.getElementById("estimate").hidden = !found;
  if (!found) return;
  const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
  const parts = (counts) => ["search", "baselines", "final"].filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`).join(" + ");
  const facts = [fact("Trials", `${sum(found.trials)} (${parts(found.trials)})`), fact("Epochs", `${sum(found.epochs)} (${parts(found.epochs)})`)];
  let basis = "No study with trials of this data set, network and method is known here, so the time is unknown.";
  if (found.seconds !== null) {
    facts.push(fact("Time", `about ${duration(found.wall_seconds)}`));
    if (found.at_once > 1.05) facts.push(fact("Time of all trials, one by one", duration(found.seconds)));
    const how = found.differs.length ? "A guess" : "Estimated";
    basis = `${how} from ${found.compared_trials} trials of study ${found.compared}, of which ${found.at_once.toFixed(1)} ran at a time in the mean`;
    basis += Math.abs(found.scaled - 1) > 0.005 ? `; its times are multiplied by ${found.scaled.toPrecision(2)} for the number of images.` : ".";
    if (found.differs.length) basis += ` That study has another value of ${found.differs.join(" and ")}, which changes the time of an epoch.`;
    if (get(complete, "sweep.early_stopping")) basis += " Early stopping makes it shorter.";
  } else if (complete?.expected_time) basis += ` Its author's guess: ${complete.expected_time}.`;
  document.getElementById("estimate-facts").replaceChildren(...facts);
  document.getElementById("estimate-basis").textContent = basis;
}

function showNotes(notes) {
  const items = notes.map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  });
  document.getElementById("check-notes").replaceChildren(...items);
}

async function ask(data, signal) {
  return post(`/definitions/check${data ? "?data=true" : ""}`, {
    headers: { "Content-Type": "application/yaml" },
    body: text.value,
    signal,
  });
}

async function check({ data = false } = {}) {
  clearTimeout(checkTimer);
  clearTimeout(dataTimer);
  pending?.abort();
  const mine = new AbortController();
  pending = mine;
  try {
    const found = await ask(data, mine.signal);
    if (mine.signal.aborted) return;
    const broken = !Object.keys(found.written).length && !found.valid;
    document.getElementById("form-fields").disabled = broken && Boolean(text.value.trim());
    if (!broken) {
      last = found.written;
      usual = found.complete ?? usual;
      fillForm();
    }
    showFaults(found.faults);
    showEstimate(found.estimate, found.complete);
    const count = found.faults.length;
    if (count) checkStatus.textContent = `${count} ${count === 1 ? "fault" : "faults"}.`;
    else if (!data) {
      checkStatus.textContent = "The definition is valid. Its data and targets are being checked…";
      showNotes([]);
      dataTimer = setTimeout(() => check({ data: true }), RESTING);
    } else if (found.data_checked) checkStatus.textContent = "The definition is valid, its data are there, and its targets can be reached.";
    else checkStatus.textContent = "The definition is valid. The search checks its data and targets before its first trial.";
    if (data) showNotes(found.notes);
  } catch (error) {
    if (mine.signal.aborted) return;
    checkStatus.textContent = `The definition cannot be checked: ${error.message}.`;
  }
}

text.addEventListener("input", () => {
  mark(new Set());
  clearTimeout(checkTimer);
  checkTimer = setTimeout(check, TYPING);
});
text.addEventListener("scroll", () => (lines.scrollTop = text.scrollTop));

for (const field of fields) {
  // Enter ends the writing of a value; it does not launch a study.
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    change(field);
  });
  field.addEventListener("input", ({ target }) => {
    if (isRange(field) && target.dataset.part === "spread") {
      const high = part(field, "high");
      high.closest("label").hidden = target.value === "value";
      part(field, "low").disabled = high.disabled = false;
      if (target.value !== "value" && high.value === "") {
        high.focus();
        return; // the other bound is still to come
      }
    }
    field.changes = (field.changes || 0) + 1; // until they are in the text
    clearTimeout(field.timer);
    field.timer = setTimeout(() => change(field), target.tagName === "SELECT" ? 0 : TYPING);
  });
  // A text that has been written is shown as the YAML has it once the focus has left it.
  field.addEventListener("focusout", ({ relatedTarget }) => {
    if (last && !field.contains(relatedTarget) && !field.changes) fill(field);
  });
}

// ---- launch ----

const keyOf = requestKeys();

document.getElementById("launch").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button[type=submit]");
  if (!button || button.disabled) return;
  button.disabled = true;
  launchErrors.hidden = true;
  for (const field of fields) if (field.changes) change(field);
  await edits;
  try {
    const headers = { "Content-Type": "application/yaml", "Idempotency-Key": keyOf(text.value) };
    checkStatus.textContent = "The study is being launched…";
    const body = await post("/studies", { headers, body: text.value });
    location.assign(`${root}/studies/${body.study.id}`);
  } catch (error) {
    checkStatus.textContent = "";
    refuse(launchErrors, "Nothing was launched:", error, "definition");
  } finally {
    button.disabled = false;
  }
});

await check();
