// Events are what happened, the newest first. Each links to its service.
import { when, words } from "./format.js";
import { byID, flash, make } from "./dom.js";
import { address, choose, view } from "./view.js";

const list = byID("events"), most = 200;
let newest = 0; // the greatest number of an event; numbers continue over a restart

// happened adds events, which are in their order.
export function happened(events) {
  const items = events.filter((e) => e.seq > newest).map(item);
  newest = Math.max(newest, events.at(-1)?.seq ?? 0);
  if (list.childElementCount > 0) items.forEach(flash);
  list.prepend(...items.reverse());
  while (list.childElementCount > most) list.lastChild.remove();
  told();
}

// told says so if nothing has happened.
export function told() { byID("no-events").hidden = list.childElementCount > 0; byID("no-events").textContent = "Nothing has happened yet."; }

function item(e) {
  const li = make("li");
  li.append(make("time", { datetime: e.time }, when(Date.parse(e.time))), " ", make("span", { class: "kind " + e.kind.replace(/[^a-z_]/g, "") }, words(e.kind)), " ");
  if (e.service) li.append(service(e.service), " ");
  li.append(make("bdi", {}, e.text));
  return li;
}

function service(name) {
  const a = make("a", { href: address({ open: new Set([name]) }) }, make("bdi", {}, name));
  a.addEventListener("click", (e) => {
    if (e.ctrlKey || e.metaKey || e.shiftKey) return;
    e.preventDefault();
    choose({ open: new Set([...view.open, name]), find: "", only: "" });
    list.dispatchEvent(new CustomEvent("service", { detail: name }));
  });
  return a;
}
