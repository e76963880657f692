// The bar at the top that says what does not work right now. Each cause has one line of its own, unless
// two say the same.

const lines = new Map();

export function notify(cause, words) {
  const bar = document.getElementById("notice");
  if (words) lines.set(cause, words);
  else lines.delete(cause);
  bar.replaceChildren(
    ...[...new Set(lines.values())].map((line) => {
      const paragraph = document.createElement("p");
      paragraph.append(line);
      return paragraph;
    }),
  );
  bar.hidden = lines.size === 0;
}
