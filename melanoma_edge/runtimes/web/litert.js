// LiteRT.js: its WebAssembly kernels (XNNPACK), on one thread or several, or WebGPU.
import { loadAndCompile, loadLiteRt, Tensor } from '@litertjs/core';
import { numbers } from './numbers.js';

export const NAME = 'LiteRT.js';

const FILES = { relaxed: 'litert_wasm_internal.js', compatible: 'litert_wasm_compat_internal.js' };
let options = { accelerator: 'wasm' };

/**
 * Starts the runtime: the build that it picks here (relaxed SIMD where the browser has it), or the one that was asked for.
 * On several threads that is the build with threads; WebGPU computes in float32, as everywhere else.
 */
export async function start({ build, threads = 1, accelerator = 'wasm' }) {
  const folder = new URL('./node_modules/@litertjs/core/wasm/', import.meta.url);
  await loadLiteRt(build ? new URL(FILES[build], folder).href : folder.href, { threads: threads > 1 });
  options = { accelerator };
  if (accelerator === 'webgpu') options.gpuOptions = { precision: 'fp32' };
  else if (threads > 1) options.cpuOptions = { numThreads: threads };
}

export async function load(bytes) {
  return new Model(await loadAndCompile(bytes, options));
}

class Model {
  constructor(model) {
    this.model = model;
    this.inputs = model.getInputDetails().map(({ shape, dtype }) => [[...shape], dtype]);
    this.outputs = model.getOutputDetails().map(({ shape, dtype }) => [[...shape], dtype]);
  }

  prepare(picture) {
    const [shape, dtype] = this.inputs[0];
    this.bound = new Tensor(numbers(picture, shape, dtype), shape);
  }

  /** Runs the model; a GPU has finished when its answer is here, so reading it is a part of that. */
  async invoke() {
    this.given = await this.model.run([this.bound]);
    if (options.accelerator !== 'wasm') this.read = (await this.given[0].data()).slice();
  }

  /** Returns a copy of the logits and frees what this inference held: WebAssembly collects no garbage. */
  async output() {
    const logits = this.read ?? (await this.given[0].data()).slice();
    for (const tensor of [this.bound, ...this.given]) tensor.delete();
    return logits;
  }
}
