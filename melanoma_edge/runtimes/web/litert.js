// LiteRT.js with its WebAssembly kernels (XNNPACK), one thread.
import { loadAndCompile, loadLiteRt, Tensor } from '@litertjs/core';
import { numbers } from './numbers.js';

export const NAME = 'LiteRT.js';

const FILES = { relaxed: 'litert_wasm_internal.js', compatible: 'litert_wasm_compat_internal.js' };

/** Starts the runtime: the build that it picks here (relaxed SIMD where the browser has it), or the one that was asked for. */
export async function start({ build }) {
  const folder = new URL('./node_modules/@litertjs/core/wasm/', import.meta.url);
  await loadLiteRt(build ? new URL(FILES[build], folder).href : folder.href);
}

export async function load(bytes) {
  return new Model(await loadAndCompile(bytes, { accelerator: 'wasm' }));
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

  async invoke() {
    this.given = await this.model.run([this.bound]);
  }

  /** Returns a copy of the logits and frees what this inference held: WebAssembly collects no garbage. */
  async output() {
    const logits = (await this.given[0].data()).slice();
    for (const tensor of [this.bound, ...this.given]) tensor.delete();
    return logits;
  }
}
