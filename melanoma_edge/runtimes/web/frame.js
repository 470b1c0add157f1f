// One runtime on one number of threads, in a frame of its own: what it keeps, and the settings that it takes once only, go with the frame.
//
// phone.js calls what stands in window.runtime.
import { forget, printed, reason } from './printed.js';
import { sha256 } from './sha256.js';

const ENGINES = { 'litert': './litert.js', 'onnxruntime': './onnxruntime.js' };
const models = new Map();
const pictures = new Map();
let module = null;
let accelerator = 'wasm';

/** Returns the file `path` as bytes. */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`no "${path}" was sent (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Returns the bytes of `count` pictures, one array each; they are fetched once. */
async function rows(path, count) {
  if (!pictures.has(path)) {
    const bytes = await fetched(path);
    const size = bytes.length / count;
    pictures.set(path, Array.from({ length: count }, (_, index) => bytes.subarray(index * size, (index + 1) * size)));
  }
  return pictures.get(path);
}

/** Starts the runtime and returns the milliseconds that it took, the packages' files included. */
async function open(command) {
  const start = performance.now();
  module = await import(ENGINES[command.engine]);
  accelerator = command.accelerator;
  await module.start(command);
  const took = performance.now() - start;
  forget(); // what it found out about the device is no reason for a failure later
  return { name: module.NAME, milliseconds: took };
}

/** Loads a model, which must have the hash that was named, and runs it once; returns the milliseconds of both. */
async function load({ key, model, sha256: expected, pictures: path, count }) {
  forget(); // of another model
  const bytes = await fetched(model);
  const found = await sha256(bytes);
  if (found !== expected) throw new Error(`the bytes that came are not the artifact's (sha256 ${found.slice(0, 12)}..., expected ${expected.slice(0, 12)}...)`);
  const start = performance.now();
  const loaded = await module.load(bytes);
  const load_ms = performance.now() - start;
  const [picture] = await rows(path, count);
  loaded.prepare(picture);
  const before = performance.now();
  await loaded.invoke();
  const first_ms = performance.now() - before;
  await loaded.output();
  // Whatever was asked for is done or refused: a runtime that goes on elsewhere than it was told to is not what is measured.
  if (accelerator !== 'wasm' && printed.left) throw new Error(printed.left);
  models.set(key, loaded);
  return { load_ms, first_ms, inputs: loaded.inputs, outputs: loaded.outputs };
}

/** Returns the logits of all pictures, float32 one after another. */
async function logits({ key, pictures: path, count }) {
  const found = [];
  for (const picture of await rows(path, count)) {
    models.get(key).prepare(picture);
    await models.get(key).invoke();
    found.push(await models.get(key).output());
  }
  return new Blob(found);
}

/**
 * Returns the milliseconds of inferences, float64: at least `runs` and `seconds` of them, after `warmup` others. Each number is the mean of `group`
 * inferences: where the clock is coarser than an inference, a single one cannot be timed. `sign` is called once in a while.
 */
async function times({ key, pictures: path, count, warmup, warmup_seconds: warmupSeconds, runs, seconds, group }, sign) {
  const given = await rows(path, count);
  const model = models.get(key);
  let turn = 0;
  const one = async () => {
    model.prepare(given[turn++ % given.length]);
    const start = performance.now();
    await model.invoke();
    const took = performance.now() - start;
    await model.output();
    return took;
  };
  const several = async () => {
    if (group === 1) return one();
    const start = performance.now();
    for (let index = 0; index < group; index++) {
      model.prepare(given[turn++ % given.length]);
      await model.invoke();
      await model.output();
    }
    return (performance.now() - start) / group;
  };
  for (let done = 0, start = performance.now(); done < warmup || performance.now() - start < 1000 * warmupSeconds; done++) {
    await one();
    await sign();
  }
  const found = [];
  let total = 0;
  while (found.length * group < runs || total < 1000 * seconds) {
    const took = await several();
    found.push(took);
    total += took * group;
    await sign();
  }
  return Float64Array.from(found);
}

const COMMANDS = { open, load, logits, times };

/** Carries out a command; throws what went wrong with what the runtime printed. */
async function run(command, sign) {
  try {
    const answer = await COMMANDS[command.kind](command, sign);
    if (printed.fault) throw new Error(printed.fault);
    return answer;
  } catch (error) {
    if (command.key) models.delete(command.key);
    throw new Error(reason(error));
  }
}

window.runtime = { run };
