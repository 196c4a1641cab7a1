// Runs the model in a thread of its own, so that the page stays responsive.

import * as ort from "./onnxruntime-web.js";
import { cutWindows, GreedySearch, joinTokens, makeTranscript } from "./decode.js";

ort.env.wasm.numThreads = 1; // more need cross-origin isolation, which a plain web server does not give
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };

const FEED_SECONDS = 0.3;

let about;
let whole;

async function fetchFile(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) {
    throw new Error(`${name}: the server answers ${response.status}; copy the whole exported folder`);
  }
  return response;
}

async function openModel(name) {
  const bytes = new Uint8Array(await (await fetchFile(name)).arrayBuffer());
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

async function load() {
  about = await (await fetchFile("model.json")).json();
  whole = await openModel("model.onnx");
  postMessage({ type: "ready", about });
}

async function transcribe(samples) {
  checkLength(samples.length);
  const windows = about.windows
    ? cutWindows(samples.length, about.windows)
    : [{ start: 0, end: samples.length, first: 0, last: samples.length }];
  const step = Math.round(about.seconds_per_frame * about.sample_rate);
  const parts = [];
  for (const { start, end, first, last } of windows) {
    const { data, dims, frames } = await runWhole(samples.subarray(start, end));
    const until = last === end ? frames : Math.min((last - start) / step, frames);
    parts.push(data.slice(((first - start) / step) * dims[2], until * dims[2]));
    postMessage({ type: "progress", done: last / samples.length });
  }
  return makeTranscript(concatenate(parts), samples, about);
}

async function runWhole(samples) {
  const inputs = {
    waveforms: new ort.Tensor("float32", samples, [1, samples.length]),
    lengths: new ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]),
  };
  const found = await whole.run(inputs);
  return { data: found.log_probs.data, dims: found.log_probs.dims, frames: Number(found.frames.data[0]) };
}

function checkLength(count) {
  if (count < about.least_samples) {
    const [found, least] = [count, about.least_samples].map((each) => (each / about.sample_rate).toFixed(2));
    throw new Error(`${found} s is too short; this model needs at least ${least} s`);
  }
}

function concatenate(parts) {
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    joined.set(part, place);
    place += part.length;
  }
  return joined;
}

/** A recording that arrives in pieces, with its text so far. */
class Stream {
  constructor(session) {
    this.session = session;
    this.search = new GreedySearch(about.spellings.length);
    this.samples = [];
    this.logProbs = [];
    this.waiting = [];
    this.numSamples = 0;
    this.caches = {};
    for (const { name, dtype, shape } of about.stream.caches) {
      const size = shape.reduce((product, each) => product * each, 1);
      const data = dtype === "int64" ? new BigInt64Array(size) : new Float32Array(size);
      this.caches[name] = new ort.Tensor(dtype, data, shape);
    }
  }

  async feed(samples) {
    this.samples.push(samples);
    this.waiting.push(samples);
    this.numSamples += samples.length;
    const held = this.waiting.reduce((sum, part) => sum + part.length, 0);
    if (held < FEED_SECONDS * about.sample_rate) {
      return;
    }
    const used = Math.floor(held / about.stream.step_samples) * about.stream.step_samples;
    const joined = concatenate(this.waiting);
    this.waiting = [joined.slice(used)];
    await this.#run(joined.subarray(0, used), -1);
    postMessage({ type: "partial", text: this.#readText(), seconds: this.numSamples / about.sample_rate });
  }

  async finish() {
    checkLength(this.numSamples);
    const rest = concatenate(this.waiting);
    const step = about.stream.step_samples;
    const padded = new Float32Array(Math.ceil((rest.length + about.stream.flush_samples) / step) * step);
    padded.set(rest);
    await this.#run(padded, this.numSamples);
    return makeTranscript(concatenate(this.logProbs), concatenate(this.samples), about);
  }

  async #run(samples, numSamples) {
    if (!samples.length) {
      return;
    }
    const found = await this.session.run({
      samples: new ort.Tensor("float32", samples, [1, samples.length]),
      num_samples: new ort.Tensor("int64", BigInt64Array.of(BigInt(numSamples)), [1]),
      ...this.caches,
    });
    for (const name of Object.keys(this.caches)) {
      this.caches[name] = found[`next_${name}`];
    }
    const rows = Float32Array.from(found.log_probs.data);
    this.logProbs.push(rows);
    this.search.feed(rows);
  }

  #readText() {
    return joinTokens(this.search.tokens, about.spellings).map((word) => word.text).join(" ");
  }
}

let live = null;
let streamSession = null;

const HANDLERS = {
  load,
  async transcribe({ samples }) {
    const begin = performance.now();
    const transcript = await transcribe(samples);
    postMessage({ type: "result", transcript, elapsed: (performance.now() - begin) / 1000 });
  },
  async begin() {
    streamSession ??= await openModel("stream.onnx");
    live = new Stream(streamSession);
  },
  feed: ({ samples }) => live.feed(samples),
  async end() {
    postMessage({ type: "result", transcript: await live.finish(), elapsed: null });
    live = null;
  },
};

// One message after the other: a session runs one input at a time.
let queue = Promise.resolve();
onmessage = ({ data }) => {
  queue = queue
    .then(() => HANDLERS[data.type](data))
    .catch((error) => postMessage({ type: "error", during: data.type, message: error?.message ?? String(error) }));
};
