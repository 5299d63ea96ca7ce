// What the reader has chosen to see. It is kept in the address, so that it can be sent, reloaded and gone back to.
const normal = { find: "", only: "", sort: "state" };

export const view = { ...normal, open: new Set() };
export const changed = new EventTarget(); // "view": something else is to be seen

function read() {
  const query = new URLSearchParams(location.search);
  for (const [k, v] of Object.entries(normal)) view[k] = query.get(k) ?? v;
  view.open = new Set(query.getAll("open"));
}

// address is the address of this page with another view.
export function address(change = {}) {
  const next = { ...view, ...change };
  const query = new URLSearchParams();
  for (const [k, v] of Object.entries(normal)) if (next[k] !== v) query.set(k, next[k]);
  for (const name of next.open) query.append("open", name);
  return query.size ? "?" + query : location.pathname;
}

// choose changes the view. An entry of the history is kept for each choice but for each letter that is typed.
export function choose(change, { typed = false } = {}) {
  const to = address(change);
  Object.assign(view, change);
  if (typed) history.replaceState(null, "", to);
  else if (to !== (location.search || location.pathname)) history.pushState(null, "", to);
  changed.dispatchEvent(new Event("view"));
}

// link makes a link to another view. The link is a real one: it can be opened in another tab.
export function link(a, change) {
  a.href = address(change());
  a.addEventListener("pointerenter", () => { a.href = address(change()); });
  a.addEventListener("click", (e) => {
    if (e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
    e.preventDefault();
    choose(change());
  });
  return a;
}

addEventListener("popstate", () => { read(); changed.dispatchEvent(new Event("view")); });
read();
