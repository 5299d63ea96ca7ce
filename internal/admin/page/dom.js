// Everything that comes from the API may have been written by anybody who can register a service in Consul. It goes into
// the page as text, never as markup.

// make returns an element with attributes and children, which are elements or text.
export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

// shape is make for SVG.
export function shape(tag, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

// put sets the text of an element, and touches nothing if the text is there already.
export function put(e, text) { if (e.textContent !== text) e.textContent = text; }

// set is put for an attribute.
export function set(e, name, value) { if (e.getAttribute(name) !== value) e.setAttribute(name, value); }

// breakable returns text that may break after the signs that part it, and isolates its direction.
export function breakable(text) {
  const e = make("bdi");
  for (const part of text.split(/(?<=[/:_.-])/)) e.append(part, make("wbr"));
  e.lastChild?.remove();
  return e;
}

// flash shows for a moment that an element is new.
export function flash(e) {
  e.classList.add("new");
  e.addEventListener("animationend", () => e.classList.remove("new"), { once: true });
}

// move moves a child before another one, or to the end. A browser that can keeps the focus and what is scrolled.
export function move(parent, child, before) {
  if (parent.moveBefore && child.parentNode === parent) parent.moveBefore(child, before);
  else parent.insertBefore(child, before);
}

export const byID = (id) => document.getElementById(id);
