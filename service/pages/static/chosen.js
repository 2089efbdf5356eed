// The trials that a reader chose for a comparison, in figures and in the table. They last as long as the tab, over studies.

import { root } from "./api.js";

const KEY = "chosen trials";
const FEWEST = 2;
const MOST = 8;
const bar = document.getElementById("compare-bar");
const status = document.getElementById("compare-status");
const link = document.getElementById("compare-link");

const stored = () => {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) || [];
  } catch {
    return []; // a browser that keeps nothing, or something else under this name
  }
};
const keep = (names) => {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(names));
  } catch {
    // it is chosen until the page is left
  }
};

export class Chosen {
  // `study` is the id of the study of this page; `changed` is called after each change.
  constructor(study, changed) {
    this.study = study.slice(0, 8); // a beginning of the id names it, and stays when it is renamed
    this.changed = changed;
    this.names = new Set(stored());
    document.getElementById("compare-clear").addEventListener("click", () => this.set(() => this.names.clear()));
    this.show();
  }

  full(name, study = this.study) {
    return `${study.slice(0, 8)}:${name}`;
  }

  has(name, study) {
    return this.names.has(this.full(name, study));
  }

  get size() {
    return this.names.size;
  }

  set(change) {
    change();
    keep([...this.names]);
    this.show();
    this.changed();
  }

  toggle(name, on) {
    this.set(() => (on ? this.names.add(this.full(name)) : this.names.delete(this.full(name))));
  }

  // Chooses exactly these of the studies that a figure shows.
  replace(full, studies) {
    this.set(() => {
      for (const name of this.names) if (studies.some((study) => name.startsWith(`${study.slice(0, 8)}:`))) this.names.delete(name);
      for (const name of full) this.names.add(name);
    });
  }

  show() {
    const count = this.names.size;
    const fits = count >= FEWEST && count <= MOST;
    bar.hidden = count === 0;
    status.textContent = `${count} ${count === 1 ? "trial" : "trials"} chosen${fits ? "" : `; ${FEWEST} to ${MOST} can be compared`}.`;
    link.hidden = !fits;
    link.textContent = `Compare ${count} trials`;
    link.href = `${root}/compare?${new URLSearchParams([...this.names].map((name) => ["trial", name]))}`;
    for (const box of document.querySelectorAll("input.choose")) box.checked = this.has(box.value);
  }
}
