// Measures on this device what the computer that served this page asks for, and shows what came out.
//
// Commands are JSON. Those of a runtime go to a frame of its own (frame.js); what does not work there is refused (refused/ID), with the reason, and
// the others go on. The computer decides what is measured in which order, so that the protocol stands in one place.
import { computed } from './sha256.js';

const SIGN_OF_LIFE_MS = 500;
const FRAME_MS = 120000;

const element = (id) => document.getElementById(id);
const frames = new Map();
let lastSign = 0;
let hidden = document.hidden ? 1 : 0;
let share = 0;
let awake = null;
let over = false;

document.addEventListener('visibilitychange', () => { if (document.hidden) hidden += 1; else if (awake) stayAwake(); });
addEventListener('error', (event) => fail(event.error ?? event.message));
addEventListener('unhandledrejection', (event) => fail(event.reason));

/** Sends `body`; a computer that has gone away is no error of this page's. */
async function send(path, body) {
  const response = await fetch(path, { method: 'POST', body }).catch(() => null);
  if (!response?.ok) say('The computer that this page came from has gone, or another device has taken its place.');
}

/** Keeps the screen on where the browser lets this page: after a tap, on a secure address, while it is in front. */
async function stayAwake() {
  awake = (await navigator.wakeLock?.request('screen').catch(() => null)) ?? null;
}

/** Holds a request open as long as this page lives, so that the computer sees when it goes; networks that cut it get a new one. */
async function live() {
  while (!over) {
    try {
      const reader = (await fetch('alive')).body.getReader();
      while (!(await reader.read()).done);
    } catch { /* the next one */ }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

/** Carries out what takes long and is not timed, and tells the computer meanwhile that this page is alive. */
async function slowly(work) {
  const timer = setInterval(() => send('progress', ''), 5000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

function say(line, done = share) {
  share = done;
  element('state').textContent = line;
  element('bar').value = share;
}

/** Lets the screen be drawn and, once in a while, tells the computer that this page is alive. */
async function sign() {
  if (performance.now() - lastSign < SIGN_OF_LIFE_MS) return;
  await send('progress', '');
  await new Promise((done) => setTimeout(done));
  lastSign = performance.now();
}

async function fail(error) {
  over = true;
  const why = String(error?.message ?? error).slice(0, 2000);
  element('state').className = 'failed';
  say(`It did not work: ${why}`);
  await send('failed', why);
}

/** Returns the smallest step of this page's clock, in microseconds. */
function clockStep() {
  let least = Infinity;
  for (let index = 0; index < 50; index++) {
    const start = performance.now();
    let now = performance.now();
    while (now === start) now = performance.now();
    least = Math.min(least, now - start);
  }
  return least * 1000;
}

async function gpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return null;
  const { vendor, architecture, device, description } = adapter.info ?? {};
  return [vendor, architecture, device, description].filter(Boolean).join(' ') || 'unnamed';
}

/** Tells what this device and its browser are, as far as they tell. */
async function facts({ bundle }) {
  element('bundle').textContent = bundle;
  say('Looking at this device…');
  const hints = await navigator.userAgentData?.getHighEntropyValues(['model', 'platformVersion']).catch(() => null);
  return {
    user_agent: navigator.userAgent,
    brands: (navigator.userAgentData?.brands ?? []).map(({ brand, version }) => `${brand} ${version}`),
    platform: [hints?.platform ?? navigator.platform, hints?.platformVersion].filter(Boolean).join(' '),
    model: hints?.model || null,
    cores: navigator.hardwareConcurrency ?? null,
    memory_gb: navigator.deviceMemory ?? null,
    screen: `${screen.width} x ${screen.height}, ${Math.round(100 * devicePixelRatio) / 100}`,
    touch: navigator.maxTouchPoints > 0,
    secure_context: isSecureContext,
    cross_origin_isolated: globalThis.crossOriginIsolated === true,
    hash: globalThis.crypto?.subtle ? 'browser' : `javascript ${computed(new TextEncoder().encode('abc')).slice(0, 8)}`,
    webgpu: 'gpu' in navigator,
    gpu: await gpu(),
    awake: awake !== null,
    clock_us: clockStep(),
  };
}

/** Makes a frame and starts a runtime in it. */
async function open(command) {
  const frame = document.createElement('iframe');
  frame.hidden = true;
  frame.src = 'frame.html';
  document.body.append(frame);
  frames.set(command.frame, frame);
  const deadline = performance.now() + FRAME_MS;
  while (!frame.contentWindow?.runtime) {
    if (performance.now() > deadline) throw new Error('the frame of the runtime did not load');
    await new Promise((done) => setTimeout(done, 20));
    await sign();
  }
  return slowly(frame.contentWindow.runtime.run(command, sign));
}

function close({ frame }) {
  frames.get(frame)?.remove();
  frames.delete(frame);
  return {};
}

const inFrame = (command) => frames.get(command.frame).contentWindow.runtime.run(command, sign);

/** Shows the results. */
function show({ groups, missing }) {
  for (const { title, rows } of groups) {
    const head = element('rows').insertRow();
    const cell = document.createElement('th');
    cell.colSpan = 4;
    cell.className = 'group';
    cell.textContent = title;
    head.append(cell);
    for (const { name, p50, p90, golden, passed } of rows) {
      const row = element('rows').insertRow();
      for (const [index, text] of [name, p50, p90, golden].entries()) {
        const place = document.createElement(index ? 'td' : 'th');
        place.textContent = text;
        row.append(place);
      }
      row.lastChild.className = passed ? 'passed' : 'failed';
    }
  }
  for (const line of missing) element('missing').append(Object.assign(document.createElement('li'), { textContent: line }));
  element('results').hidden = false;
  say('Done. The results are on the computer too; you can close this page.', 1);
  return { hidden };
}

/** What answers with numbers; the others answer with JSON. (An object of a frame is of no class of this page's.) */
const BINARY = new Set(['logits', 'times']);
const COMMANDS = { facts, open, close, show, load: (command) => slowly(inFrame(command)), logits: inFrame, times: inFrame };

async function main() {
  await new Promise((done) => element('start').addEventListener('click', done, { once: true }));
  element('start').hidden = true;
  await stayAwake(); // browsers allow it after a tap only
  live();
  say('Waiting for work…');
  for (;;) {
    const response = await fetch('next');
    if (response.status === 204) continue;
    if (!response.ok) throw new Error(response.status === 404 ? 'another device has opened this address: run the command on the computer again' : `no work was sent (${response.status})`);
    const command = await response.json();
    if (command.kind === 'end') {
      over = true;
      await awake?.release().catch(() => null);
      return element('results').hidden ? say('The computer stopped before everything was measured.') : undefined;
    }
    if (command.line) say(command.line, command.share);
    try {
      const answer = await COMMANDS[command.kind](command);
      await send(`answer/${command.id}`, BINARY.has(command.kind) ? answer : JSON.stringify(answer));
    } catch (error) {
      await send(`refused/${command.id}`, String(error?.message ?? error).slice(0, 2000));
    }
  }
}

main().catch(fail);
