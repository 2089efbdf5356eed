import { post, root } from "./api.js";
import { keepFresh } from "./live.js";

keepFresh({ active: () => true, seconds: 4 });

const form = document.getElementById("launch");
const errors = document.getElementById("launch-errors");
const text = document.getElementById("definition");

function show(error) {
  const faults = error.faults && error.faults.length ? error.faults : [error.message];
  const list = document.createElement("ul");
  for (const fault of faults) {
    const item = document.createElement("li");
    item.textContent = fault.replace(/^definition: /, "");
    list.append(item);
  }
  const head = document.createElement("strong");
  head.textContent = "Nothing was launched:";
  errors.replaceChildren(head, list);
  errors.hidden = false;
  text.setAttribute("aria-invalid", "true");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  errors.hidden = true;
  text.removeAttribute("aria-invalid");
  try {
    const body = await post("/studies", { headers: { "Content-Type": "application/yaml" }, body: text.value });
    location.assign(`${root}/studies/${body.study.id}`);
  } catch (error) {
    show(error);
  } finally {
    button.disabled = false;
  }
});
