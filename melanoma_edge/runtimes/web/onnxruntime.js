// onnxruntime-web: its WebAssembly kernels (MLAS), on one thread or several, or WebGPU.
import { numbers } from './numbers.js';

export const NAME = 'onnxruntime-web';

let ort = null;
let options = null;

export async function start({ threads = 1, accelerator = 'wasm' }) {
  ort = await import(accelerator === 'webgpu' ? 'onnxruntime-web/webgpu' : 'onnxruntime-web');
  ort.env.wasm.wasmPaths = new URL('./node_modules/onnxruntime-web/dist/', import.meta.url).href;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'error';
  options = { executionProviders: [accelerator], graphOptimizationLevel: 'all' };
  if (accelerator !== 'wasm') options.extra = { session: { disable_cpu_ep_fallback: '1' } }; // it would compute on the processor and not say so
}

export async function load(bytes) {
  return new Model(await ort.InferenceSession.create(bytes, options));
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
