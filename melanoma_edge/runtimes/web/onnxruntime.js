// onnxruntime-web with its WebAssembly kernels (MLAS), one thread.
import * as ort from 'onnxruntime-web';
import { numbers } from './numbers.js';

export const NAME = 'onnxruntime-web';

export async function start() {
  ort.env.wasm.wasmPaths = new URL('./node_modules/onnxruntime-web/dist/', import.meta.url).href;
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'error';
}

export async function load(bytes) {
  return new Model(await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'], graphOptimizationLevel: 'all' }));
}

class Model {
  constructor(session) {
    this.session = session;
    this.inputs = session.inputMetadata.map(({ shape, type }) => [[...shape], type]);
    this.outputs = session.outputMetadata.map(({ shape, type }) => [[...shape], type]);
  }

  prepare(picture) {
    const [shape, type] = this.inputs[0];
    this.bound = new ort.Tensor(type, numbers(picture, shape, type), shape);
  }

  async invoke() {
    this.given = await this.session.run({ [this.session.inputNames[0]]: this.bound });
  }

  async output() {
    return this.given[this.session.outputNames[0]].data;
  }
}
