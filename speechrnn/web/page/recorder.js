// Passes the microphone's samples on to the page, as the mean of its channels.

const SAMPLES = 2048; // in a message

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Float32Array(SAMPLES);
    this.count = 0;
  }

  process([channels]) {
    for (let place = 0; place < (channels[0]?.length ?? 0); place += 1) {
      this.samples[this.count] = channels.reduce((sum, channel) => sum + channel[place], 0) / channels.length;
      this.count += 1;
      if (this.count === SAMPLES) {
        this.port.postMessage(this.samples, [this.samples.buffer]);
        this.samples = new Float32Array(SAMPLES);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
