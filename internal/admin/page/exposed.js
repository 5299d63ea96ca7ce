// Exposed shows of an instance that is served to the service mesh who is connected, and who was refused.
import { count, isolated, when } from "./format.js";
import { breakable, make, put } from "./dom.js";

const several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

export class Exposed {
  constructor() {
    this.about = make("p");
    this.problem = make("p", { class: "bad" });
    this.denied = make("p");
    this.clients = make("ul", { class: "clients", "aria-label": "Connected identities" });
    this.rest = make("p");
    this.element = make("div", { class: "served" }, this.about, this.problem, this.denied, this.clients, this.rest);
    this.lines = new Map(); // by identity
  }

  // draw shows what is known now. x is undefined if the service is not served to the mesh.
  draw(x) {
    this.element.hidden = !x;
    if (!x) return;
    put(this.about, `Peers connect to ${isolated(x.listen)}, for the instance ${isolated(x.service_id)} at ${isolated(x.local)}; ` +
      (x.registered ? `registered at ${when(Date.parse(x.registered))}.` : "not registered yet."));
    put(this.problem, x.error ?? "");
    this.problem.hidden = !x.error;
    put(this.denied, `Refused because of their identity: ${several(x.denied, "client")}. Cut off when intentions changed: ${several(x.ended, "connection")}.`);
    const clients = x.clients ?? [];
    this.drawClients(clients);
    const known = clients.reduce((n, c) => n + c.connections, 0), other = Math.max(0, x.connections - known);
    put(this.rest, clients.length === 0 && other === 0 ? "Nobody is connected." :
      x.clients_short ? `And more identities: these are the ${clients.length} with the most connections.` :
      other > 0 ? `${several(other, "connection")} without a certificate, or in a handshake.` : "");
    this.rest.hidden = this.rest.textContent === "";
  }

  // drawClients shows each identity with its connections. It keeps the lines of identities that stay.
  drawClients(clients) {
    this.clients.hidden = clients.length === 0;
    const there = new Set(clients.map((c) => c.identity));
    for (const [id, l] of this.lines) if (!there.has(id)) { l.li.remove(); this.lines.delete(id); }
    clients.forEach((c, i) => {
      let l = this.lines.get(c.identity);
      if (!l) {
        const number = make("b");
        this.lines.set(c.identity, l = { number, li: make("li", {}, number, " from ", breakable(c.identity)) });
      }
      if (this.clients.children[i] !== l.li) this.clients.insertBefore(l.li, this.clients.children[i] ?? null);
      put(l.number, several(c.connections, "connection"));
    });
  }
}
