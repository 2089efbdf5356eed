import { keepFresh } from "./live.js";

keepFresh({ active: () => true, seconds: 4 });

const form = document.getElementById("filter");

// What is not chosen stays out of the address.
form?.addEventListener("formdata", ({ formData }) => {
  for (const [name, value] of [...formData]) if (!value || (name === "sort" && value === "created")) formData.delete(name);
});
form?.addEventListener("change", ({ target }) => target.matches("select, [type=checkbox]") && form.requestSubmit());
