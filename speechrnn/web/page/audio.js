// Recordings and the microphone as mono samples at the model's rate.

const ZEROS = 16; // of the sinc on each side, at the lower of both rates

// Models are trained on recordings without these.
const RAW = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Decode a file; the browser resamples it. */
export async function decodeFile(file, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name}: this browser cannot decode it; convert it to WAV, FLAC or MP3`);
  }
  const samples = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    buffer.getChannelData(channel).forEach((value, place) => {
      samples[place] += value / buffer.numberOfChannels;
    });
  }
  return samples;
}

/** Resampling of pieces with a windowed sinc, for browsers that record at their own rate only. */
export class Resampler {
  constructor(fromRate, toRate) {
    this.ratio = fromRate / toRate;
    this.scale = Math.min(1, toRate / fromRate);
    this.reach = Math.ceil(ZEROS / this.scale);
    this.held = new Float32Array(this.reach);
    this.next = this.reach; // place of the next output, in the held samples
  }

  feed(samples) {
    if (this.ratio === 1) {
      return samples;
    }
    const held = new Float32Array(this.held.length + samples.length);
    held.set(this.held);
    held.set(samples, this.held.length);
    const found = [];
    while (this.next + this.reach < held.length) {
      found.push(this.#interpolate(held, this.next));
      this.next += this.ratio;
    }
    const dropped = Math.max(0, Math.floor(this.next) - this.reach);
    this.held = held.slice(dropped);
    this.next -= dropped;
    return Float32Array.from(found);
  }

  #interpolate(samples, place) {
    let sum = 0;
    for (let at = Math.ceil(place - this.reach); at <= place + this.reach; at += 1) {
      const distance = (at - place) * this.scale;
      const shape = Math.abs(distance) < ZEROS ? 0.5 + 0.5 * Math.cos((Math.PI * distance) / ZEROS) : 0;
      const sinc = distance === 0 ? 1 : Math.sin(Math.PI * distance) / (Math.PI * distance);
      sum += samples[at] * sinc * shape;
    }
    return sum * this.scale;
  }
}

/** The microphone, until `stop`. */
export class Microphone {
  /**
   * @param {number} rate - The model's, in Hz.
   * @param {(samples: Float32Array) => void} onSamples
   */
  static async open(rate, onSamples) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("The microphone needs a page from https or from localhost");
    }
    const microphone = new Microphone();
    try {
      microphone.media = await navigator.mediaDevices.getUserMedia({ audio: RAW });
      await microphone.#connect(rate, onSamples);
    } catch (error) {
      microphone.stop();
      throw new Error(describe(error));
    }
    return microphone;
  }

  async #connect(rate, onSamples) {
    let source;
    try {
      this.context = new AudioContext({ sampleRate: rate });
      source = this.context.createMediaStreamSource(this.media);
    } catch {
      this.context?.close();
      this.context = new AudioContext(); // a browser that records at its own rate only
      source = this.context.createMediaStreamSource(this.media);
    }
    const resampler = new Resampler(this.context.sampleRate, rate);
    await this.context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
    const recorder = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => onSamples(resampler.feed(data));
    source.connect(recorder);
    await this.context.resume();
  }

  stop() {
    this.media?.getTracks().forEach((track) => track.stop());
    if (this.context && this.context.state !== "closed") {
      this.context.close();
    }
  }
}

function describe(error) {
  const known = {
    NotAllowedError: "The microphone is blocked; allow it in the browser's settings of this page",
    NotFoundError: "There is no microphone",
    NotReadableError: "Another program uses the microphone",
  };
  return known[error.name] ?? `The microphone cannot be opened (${error.message})`;
}
