// Draining an endpoint is asked for once more, with a warning if it is the last one that gets clients.
import { byID, make, put } from "./dom.js";

const dialog = byID("drain"), error = byID("drain-error"), warning = byID("drain-warning"), yes = byID("drain-yes");
let asked; // what the dialog is about: {service, endpoint, force}

async function post(service, action, body) {
  const answer = await fetch(`v1/services/${encodeURIComponent(service.name)}/${action}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (answer.ok) return;
  const e = new Error((await answer.json().catch(() => ({}))).error ?? `the answer was ${answer.status}`);
  e.isLast = answer.status === 409;
  throw e;
}

// drain asks, and then drains.
export function drain(service, endpoint) {
  asked = { service, endpoint, force: false };
  byID("drain-what").replaceChildren("Drain ", make("bdi", {}, endpoint.id), " of ", make("bdi", {}, service.name), "?");
  put(error, "");
  byID("drain-reason").value = "";
  warn(service.in === 1 && endpoint.state === "in");
  show(false);
  (asked.force ? byID("drain-no") : yes).focus();
}

// warn says that the endpoint is the last one, or does not.
function warn(isLast) {
  asked.force = isLast;
  warning.hidden = !isLast;
  byID("drain-rest").hidden = isLast;
  put(warning, "No other endpoint of the service gets clients. Lictor will refuse its clients until one does.");
  put(yes, isLast ? "Drain the last endpoint" : "Drain");
  yes.classList.toggle("danger", isLast);
}

// undrain needs no question: it harms nothing, and a drain undoes it.
export async function undrain(service, endpoint, button) {
  button.disabled = true;
  try { await post(service, "undrain", { endpoint: endpoint.id, user: byID("drain-user").value.trim() }); } catch (e) { tell(endpoint, e); }
  button.disabled = false;
}

// tell shows that an endpoint is still drained, and why.
function tell(endpoint, e) {
  byID("drain-what").replaceChildren(make("bdi", {}, endpoint.id), " is still drained");
  put(error, e.message);
  show(true);
}

// show opens the dialog, either with a question or only to tell something.
function show(told) {
  dialog.classList.toggle("told", told);
  put(byID("drain-no"), told ? "Close" : "Cancel");
  dialog.showModal();
}

byID("drain-form").addEventListener("submit", async (e) => {
  e.preventDefault();
  const { service, endpoint, force } = asked;
  const body = { endpoint: endpoint.id, for: byID("drain-for").value, reason: byID("drain-reason").value.trim(), user: byID("drain-user").value.trim(), force };
  yes.disabled = true;
  try {
    await post(service, "drain", body);
    dialog.close();
  } catch (e) {
    put(error, e.message);
    if (e.isLast) warn(true);
  }
  yes.disabled = false;
});
byID("drain-no").addEventListener("click", () => dialog.close());
