// Asks the computer that served this page for commands, carries them out, and sends back what came out.
//
// A command is JSON: `load` a model, give its `logits` or `times` on some pictures, or `end`. Every answer goes to
// answer/ID. Whatever goes wrong goes to `failed`, with what the runtime printed, which often says why.

import { forget, printed, reason } from './printed.js';

const ENGINES = { 'litert': './litert.js', 'onnxruntime': './onnxruntime.js' };
const SIGN_OF_LIFE_MS = 1000;

const element = (id) => document.getElementById(id);
let engine = null;
let lastSign = 0;
let alive = null;

addEventListener('error', (event) => fail(event.error ?? event.message));
addEventListener('unhandledrejection', (event) => fail(event.reason));

/** Returns the file `path` as bytes. */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`no "${path}" was sent (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Sends `body`; a computer that has gone away is no error of this page's. */
async function send(path, body) {
  await fetch(path, { method: 'POST', body }).catch(() => say('The computer that this page came from has gone.', 0));
}

/** Shows a line, and a bar that is filled to `share`; undefined for a bar that only moves. */
function say(line, share) {
  element('state').textContent = line;
  if (share === undefined) element('bar').removeAttribute('value');
  else element('bar').value = share;
}

/** Shows the progress and, once a second, tells the computer that this page is alive and lets the screen be drawn. */
async function progress(line, share) {
  if (performance.now() - lastSign < SIGN_OF_LIFE_MS) return;
  say(line, share);
  await send('progress', line);
  await new Promise((done) => setTimeout(done));
  lastSign = performance.now();
}

async function fail(error) {
  const why = reason(error);
  element('state').className = 'failed';
  say(`It did not work: ${why}`, 0);
  await send('failed', why);
}

/** Loads the model and answers with the shapes and types of its inputs and outputs. */
async function load(command) {
  element('model').textContent = command.name;
  say('Fetching the runtime…');
  const module = await import(ENGINES[command.engine]);
  await module.start(command);
  forget(); // what it found out about the device, such as that there is no GPU, is no reason for a failure later
  element('runtime').textContent = `${module.NAME}, one thread`;
  say('Loading the model…');
  engine = await module.load(await fetched(command.model));
  return JSON.stringify({ inputs: engine.inputs, outputs: engine.outputs });
}

/** Answers with the logits of `count` pictures, float32 one after another. */
async function logits({ pictures, count, done, total }) {
  const bytes = await fetched(pictures);
  const size = bytes.length / count;
  const rows = [];
  for (let index = 0; index < count; index++) {
    engine.prepare(bytes.subarray(index * size, (index + 1) * size));
    await engine.invoke();
    rows.push(await engine.output());
    await progress(`${done + index + 1} of ${total} pictures`, (done + index + 1) / total);
  }
  return new Blob(rows);
}

/** Answers with the milliseconds of each of `runs` inferences, float64, after `warmup` others. */
async function times({ pictures, count, warmup, runs }) {
  const bytes = await fetched(pictures);
  const size = bytes.length / count;
  const milliseconds = new Float64Array(runs);
  for (let index = -warmup; index < runs; index++) {
    const picture = (index + warmup) % count;
    engine.prepare(bytes.subarray(picture * size, (picture + 1) * size));
    const start = performance.now();
    await engine.invoke();
    if (index >= 0) milliseconds[index] = performance.now() - start;
    await engine.output();
    await progress(`Measuring: ${Math.max(index + 1, 0)} of ${runs}`, Math.max(index + 1, 0) / runs);
  }
  return milliseconds;
}

const COMMANDS = { load, logits, times };

async function main() {
  fetch('alive').then((response) => { alive = response; }).catch(() => {}); // never ends, and is held: the computer sees at once when this page goes
  say('Waiting for work…');
  for (;;) {
    const response = await fetch('next');
    if (response.status === 204) continue;
    if (!response.ok) throw new Error(`no work was sent (${response.status})`);
    const command = await response.json();
    if (command.kind === 'end') return say('Done. You can close this page.', 1);
    const answer = await COMMANDS[command.kind](command);
    if (printed.fault) throw new Error(printed.fault);
    await send(`answer/${command.id}`, answer);
  }
}

main().catch(fail);
