// What people do with a study besides searching: extend, name, tag, note, archive, delete. Only what its state allows is
// offered, and what is being written is kept while the page refreshes.
import { api, post, root, send } from "./api.js";

const study = document.querySelector("main").dataset.study;
const section = document.getElementById("manage");
const allowed = document.getElementById("allowed");
const status = document.getElementById("manage-status");
const form = (name) => document.getElementById(name);
let leaving = false;

// Shows what the state allows; called after each refresh of the page.
export function offer() {
  if (!section) return;
  const { extend, mostAdded, archived } = allowed.dataset;
  form("extend").hidden = extend !== "yes";
  form("extend-trials").max = mostAdded;
  form("archive").textContent = archived === "yes" ? "Take out of the archive" : "Archive";
  form("delete-waits").hidden = allowed.dataset.delete === "yes";
  confirmed();
}

function confirmed() {
  const typed = form("delete-name").value === allowed.dataset.name;
  form("delete").querySelector("button").disabled = leaving || !typed || allowed.dataset.delete !== "yes";
}

async function act(what, done, refresh) {
  status.textContent = "";
  try {
    await what();
    status.textContent = done;
  } catch (error) {
    status.textContent = error.message;
  }
  await refresh();
}

function describe(changes) {
  const headers = { "Content-Type": "application/json" };
  return api(`/studies/${study}`, { method: "PATCH", headers, body: JSON.stringify(changes) });
}

export function manage(refresh) {
  if (!section) return;
  const on = (name, event, action) =>
    form(name).addEventListener(event, (happened) => {
      happened.preventDefault();
      return action();
    });
  on("extend", "submit", () => {
    const trials = Number(form("extend-trials").value);
    return act(() => post(`/studies/${study}/extend?trials=${trials}`), `${trials} trials were added; the search is queued.`, refresh);
  });
  on("describe", "submit", () => {
    const values = Object.fromEntries(new FormData(form("describe")));
    const tags = values.tags.split(",").map((tag) => tag.trim()).filter(Boolean);
    return act(async () => {
      const saved = await describe({ name: values.name.trim(), tags, note: values.note });
      document.querySelector("h1").textContent = saved.name;
      document.querySelector(".crumbs [aria-current]").textContent = saved.name;
      document.title = document.title.replace(/^.* · /, `${saved.name} · `);
    }, "Saved.", refresh);
  });
  on("archive", "click", () => {
    const archived = allowed.dataset.archived !== "yes";
    return act(() => describe({ archived }), archived ? "The study is archived." : "The study is in the usual list again.", refresh);
  });
  form("delete-name").addEventListener("input", confirmed);
  on("delete", "submit", async () => {
    leaving = true;
    confirmed();
    try {
      await send(`/studies/${study}?confirm=${encodeURIComponent(form("delete-name").value)}`, { method: "DELETE" });
      location.assign(`${root}/`);
    } catch (error) {
      leaving = false;
      status.textContent = error.message;
      confirmed();
    }
  });
  offer();
}
