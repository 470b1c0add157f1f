// What the runtimes print while they work: it often says why something went wrong.

const LINES = 4;
const COLOURS = /\x1b\[[0-9;]*m/g;
const NOISE = /^\s*(INFO|WARNING|VERBOSE):/;
// LiteRT.js 2.5.3 prints that it could not prepare a model, and then answers with whatever stood in its memory.
const FAULT = /^\s*ERROR:/;
// It also prints that it left the accelerator that was asked for, and goes on without.
const LEFT = /fall(s|ing)?[ -]?back|not supported on|not fully (accelerated|delegated)/i;

export const printed = { lines: [], fault: null, left: null };

for (const level of ['log', 'info', 'warn', 'error']) {
  const original = console[level];
  console[level] = (...words) => {
    const line = words.join(' ').replace(COLOURS, '');
    if (FAULT.test(line)) printed.fault ??= line;
    if (LEFT.test(line)) printed.left ??= line;
    if (!NOISE.test(line) && (level === 'warn' || level === 'error')) printed.lines.push(line);
    printed.lines.splice(0, Math.max(0, printed.lines.length - LINES));
    original.apply(console, words);
  };
}

/** Forgets what was printed so far. */
export function forget() {
  printed.lines.length = 0;
  printed.fault = null;
  printed.left = null;
}

/** Returns an error, and what was printed before it, as one text. */
export function reason(error) {
  return [...new Set([String(error?.message ?? error), ...printed.lines])].join('; ').slice(0, 2000);
}
