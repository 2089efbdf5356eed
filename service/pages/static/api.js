// Talks to the API with the cookie of this page; an error becomes an Error whose message is meant for people.

// The sub-path under which a proxy serves this, without a slash at its end; this file is ROOT/static/api.js.
export const root = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

export class ApiError extends Error {
  constructor(status, body) {
    super(body.detail || `the service answered ${status}`);
    this.status = status;
    this.faults = body.faults || [];
  }
}

export async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(`${root}/api/v1${path}`, options);
  } catch {
    throw new ApiError(0, { detail: "the service cannot be reached" });
  }
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  return response;
}

// Shows in a box what was wrong with a form: a line for each fault, without the name of the whole before its key.
export function refuse(box, head, error, whole) {
  const list = document.createElement("ul");
  for (const fault of error.faults?.length ? error.faults : [error.message]) {
    const item = document.createElement("li");
    item.textContent = fault.startsWith(`${whole}: `) ? fault.slice(whole.length + 2) : fault;
    list.append(item);
  }
  const title = document.createElement("strong");
  title.textContent = head;
  box.replaceChildren(title, list);
  box.hidden = false;
}

// Returns a function that gives the content of a request its Idempotency-Key: after a lost answer or a double click, equal
// content has the same key, so it creates one thing.
export function requestKeys() {
  let key;
  let of;
  return (content) => {
    if (of !== content) {
      of = content;
      key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
    return key;
  };
}

export const api = async (path, options = {}) => (await send(path, options)).json();
export const post = (path, options = {}) => api(path, { method: "POST", ...options });
