import { keepFresh } from "./live.js";

const jobs = document.getElementById("jobs");
keepFresh({ active: () => jobs.dataset.open !== "0", seconds: 4 });
