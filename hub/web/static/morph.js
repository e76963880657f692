// Makes one tree of the page like another one, in place: what stays the same is not touched, so that
// focus, scrolling, selections and what somebody has unfolded outlive it.

export function morph(before, after) {
  if (before.nodeType !== Node.ELEMENT_NODE) {
    if (before.data !== after.data) before.data = after.data;
    return;
  }
  attributes(before, after);
  const left = new Set(before.childNodes);
  let place = before.firstChild;
  for (const child of [...after.childNodes]) {
    const same = [...left].find((node) => alike(node, child));
    if (!same) {
      before.insertBefore(child, place);
      continue;
    }
    left.delete(same);
    if (same === place) place = place.nextSibling;
    else before.insertBefore(same, place);
    morph(same, child);
  }
  for (const node of left) node.remove();
}

function attributes(before, after) {
  for (const { name, value } of after.attributes) {
    if (name !== "open" && before.getAttribute(name) !== value) before.setAttribute(name, value);
  }
  for (const { name } of [...before.attributes]) {
    if (name !== "open" && !after.hasAttribute(name)) before.removeAttribute(name);
  }
}

function alike(one, other) {
  return one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");
}
