// SHA-256 (FIPS 180-4). Browsers have it themselves, but for pages of secure addresses only: on plain http this one counts.

const FRACTION = (value) => ((value - Math.floor(value)) * 2 ** 32) | 0;
const PRIMES = [];
for (let candidate = 2; PRIMES.length < 64; candidate++) if (PRIMES.every((prime) => candidate % prime)) PRIMES.push(candidate);
const ROUNDS = Int32Array.from(PRIMES, (prime) => FRACTION(Math.cbrt(prime)));
const BEGIN = Int32Array.from(PRIMES.slice(0, 8), (prime) => FRACTION(Math.sqrt(prime)));

const turn = (word, bits) => (word >>> bits) | (word << (32 - bits));

function mix(state, block, words) {
  for (let index = 0; index < 16; index++) words[index] = block.getInt32(4 * index);
  for (let index = 16; index < 64; index++) {
    const before = words[index - 15];
    const last = words[index - 2];
    const low = turn(before, 7) ^ turn(before, 18) ^ (before >>> 3);
    const high = turn(last, 17) ^ turn(last, 19) ^ (last >>> 10);
    words[index] = words[index - 16] + low + words[index - 7] + high;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let index = 0; index < 64; index++) {
    const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[index] + words[index]) | 0;
    const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => { state[index] += word; });
}

/** Returns the hash of bytes (Uint8Array), 64 hexadecimal digits, computed in JavaScript. */
export function computed(bytes) {
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length * 8) >>> 0);
  const state = Int32Array.from(BEGIN);
  const words = new Int32Array(64);
  for (let start = 0; start < padded.length; start += 64) mix(state, new DataView(padded.buffer, start, 64), words);
  return [...state].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
}

/** Returns the hash of bytes by the browser where it may be asked, else in JavaScript. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return computed(bytes);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
