// Log-probabilities to words with times, by the rules of speechrnn's greedy decoder
// (speechrnn/decoding/greedy.py, recognition/word_times.py, recognition/cutters.py and recognition/joining.py).

const BLANK = 0;
const FRAME_SECONDS = 0.01;
const QUIET_DB = 30;
const ABOVE_FLOOR_DB = 6;
const LEAST_CONTRAST_DB = 12;
const PAUSE_WITHIN_FRAMES = 12;
const REACH_SECONDS = 0.8;
const REACH_FRAMES = 80;
const SILENCE = 1e-4;
const BLANK_SECONDS = 0.5;
const STRETCH_SECONDS = 10;
const LONG_BLANK_SECONDS = 1.5;
const MAX_STRETCH_SECONDS = 30;
const ROUNDING = 1e-6;

/** Greedy decoding of frames that arrive in pieces: the best token of every frame, repeats merged, blanks removed. */
export class GreedySearch {
  /** @param {number} numTokens - Size of the vocabulary, the blank included. */
  constructor(numTokens) {
    this.numTokens = numTokens;
    this.numFrames = 0;
    this.tokens = [];
    this.frames = [];
    this.confidences = [];
    this.last = BLANK;
  }

  /** @param {Float32Array} logProbs - Rows of natural logs, one for each token. */
  feed(logProbs) {
    for (let row = 0; row < logProbs.length; row += this.numTokens) {
      const best = findBest(logProbs, row, this.numTokens);
      const value = logProbs[row + best];
      if (!Number.isFinite(value)) {
        throw new Error(`frame ${this.numFrames}: the highest log-probability is not finite; export the model again`);
      }
      if (best !== BLANK) {
        this.#add(best, Math.min(Math.exp(value), 1));
      }
      this.last = best;
      this.numFrames += 1;
    }
  }

  #add(token, confidence) {
    const end = this.tokens.length - 1;
    if (token === this.last) {
      this.frames[end][1] = this.numFrames;
      this.confidences[end] = Math.max(this.confidences[end], confidence);
    } else {
      this.tokens.push(token);
      this.frames.push([this.numFrames, this.numFrames]);
      this.confidences.push(confidence);
    }
  }
}

function findBest(logProbs, row, numTokens) {
  let best = 0;
  for (let token = 1; token < numTokens; token += 1) {
    if (logProbs[row + token] > logProbs[row + best]) {
      best = token;
    }
  }
  return best;
}

/** Token ids to words: each with the positions of its first and last token. */
export function joinTokens(tokens, spellings) {
  const words = [];
  let isInside = false;
  tokens.forEach((token, position) => {
    const [begins, letters] = spellings[token];
    isInside = isInside && !begins;
    if (letters && isInside) {
      words.at(-1).text += letters;
      words.at(-1).last = position;
    } else if (letters) {
      words.push({ text: letters, first: position, last: position });
      isInside = true;
    }
  });
  return words;
}

/**
 * Words with start and end in seconds and a confidence.
 * @param {GreedySearch} search
 * @param {Float32Array} samples - The recording that was searched.
 * @param {object} about - The model's description, model.json.
 */
export function makeWords(search, samples, about) {
  const found = [];
  for (const { text, first, last } of joinTokens(search.tokens, about.spellings)) {
    const start = search.frames[first][0] * about.seconds_per_frame;
    const end = (search.frames[last][1] + 1) * about.seconds_per_frame;
    if (hasSound(samples, about.sample_rate, start, end)) {
      const posteriors = search.confidences.slice(first, last + 1);
      const mean = posteriors.reduce((product, value) => product * value, 1) ** (1 / posteriors.length);
      found.push({ text, start, end, confidence: calibrate(mean, about.calibration) });
    }
  }
  const times = placeWords(found, samples, about.sample_rate);
  return found.map((word, number) => ({ ...word, start: times[number][0], end: times[number][1] }));
}

function calibrate(confidence, calibration) {
  if (!calibration) {
    return confidence;
  }
  const clipped = Math.min(Math.max(confidence, 1e-6), 1 - 1e-6);
  const logit = Math.log(clipped) - Math.log1p(-clipped);
  return 0.5 + 0.5 * Math.tanh(0.5 * (calibration.slope * logit + calibration.offset));
}

function hasSound(samples, rate, start, end) {
  const first = Math.max(0, Math.trunc((start - REACH_SECONDS) * rate));
  const last = Math.min(samples.length, Math.trunc((end + REACH_SECONDS) * rate));
  let low = Infinity;
  let high = -Infinity;
  for (let place = first; place < last; place += 1) {
    low = Math.min(low, samples[place]);
    high = Math.max(high, samples[place]);
  }
  return high - low >= 2 * SILENCE;
}

function placeWords(peaks, samples, rate) {
  const seconds = samples.length / rate;
  const levels = measureLevels(samples, rate);
  const isLoud = findLoud(levels);
  if (!peaks.length || !isLoud.includes(true)) {
    return peaks.map(({ start, end }) => [Math.min(start, seconds), Math.min(end, seconds)]);
  }
  const count = levels.length;
  const frames = peaks.map(({ start, end }) => {
    const first = clip(Math.trunc(start / FRAME_SECONDS + ROUNDING), 0, count - 1);
    return [first, Math.max(first, clip(Math.ceil(end / FRAME_SECONDS - ROUNDING) - 1, 0, count - 1))];
  });
  const bounds = [0];
  for (let number = 1; number < frames.length; number += 1) {
    bounds.push(findBoundary(levels, isLoud, frames[number - 1][1], frames[number][0]));
  }
  bounds.push(count);
  return frames.map(([first, last], number) => {
    const [low, high] = [bounds[number], bounds[number + 1]];
    const [start, end] = reach(isLoud, Math.min(first, high - 1), Math.max(last, low), low, high);
    return [Math.min(start * FRAME_SECONDS, seconds), Math.min(end * FRAME_SECONDS, seconds)];
  });
}

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function measureLevels(samples, rate) {
  const size = Math.max(1, Math.round(FRAME_SECONDS * rate));
  const levels = new Float32Array(Math.ceil(samples.length / size));
  for (let frame = 0; frame < levels.length; frame += 1) {
    let sum = 0;
    for (let place = frame * size; place < Math.min((frame + 1) * size, samples.length); place += 1) {
      sum += samples[place] ** 2;
    }
    levels[frame] = 10 * Math.log10(sum / size + 1e-10);
  }
  return levels;
}

function findLoud(levels) {
  const sorted = Float32Array.from(levels).sort();
  const [floor, top] = [quantile(sorted, 0.05), quantile(sorted, 0.98)];
  const least = top - floor < LEAST_CONTRAST_DB ? Infinity : Math.max(floor + ABOVE_FLOOR_DB, top - QUIET_DB);
  return Array.from(levels, (level) => level > least);
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

function findRuns(isSet) {
  const runs = [];
  for (let place = 0; place < isSet.length; place += 1) {
    if (isSet[place] && !isSet[place - 1]) {
      runs.push([place, place]);
    }
    if (isSet[place]) {
      runs.at(-1)[1] = place + 1;
    }
  }
  return runs;
}

function findLongestRun(isSet) {
  return findRuns(isSet).reduce((best, run) => (run[1] - run[0] > best[1] - best[0] ? run : best), [0, 0]);
}

function findBoundary(levels, isLoud, last, first) {
  if (first - last < 2) {
    return Math.max(first, last);
  }
  const [begin, end] = findLongestRun(isLoud.slice(last + 1, first).map((loud) => !loud));
  if (end > begin) {
    return last + 1 + Math.floor((begin + end) / 2);
  }
  const between = levels.slice(last + 1, first);
  const at = (place) => between[clip(place, 0, between.length - 1)];
  const smooth = Array.from(between, (_, place) => at(place - 1) + at(place) + at(place + 1));
  return last + 1 + smooth.indexOf(Math.min(...smooth));
}

function reach(isLoud, first, last, lowest, highest) {
  const low = Math.max(lowest, first - REACH_FRAMES);
  const high = Math.min(highest, last + 1 + REACH_FRAMES);
  const loud = [];
  for (let frame = low; frame < high; frame += 1) {
    if (isLoud[frame]) {
      loud.push(frame);
    }
  }
  if (!loud.length) {
    return [first, last + 1];
  }
  const distances = loud.map((frame) => Math.abs(frame - clip(frame, first, last)));
  const nearest = loud[distances.indexOf(Math.min(...distances))];
  let begin = nearest;
  let end = nearest;
  for (const frame of loud.filter((each) => each < nearest).reverse()) {
    if (begin - frame > PAUSE_WITHIN_FRAMES + 1 && frame < first) {
      break;
    }
    begin = frame;
  }
  for (const frame of loud.filter((each) => each > nearest)) {
    if (frame - end > PAUSE_WITHIN_FRAMES + 1 && frame > last) {
      break;
    }
    end = frame;
  }
  return [begin, end + 1];
}

/**
 * The windows of a recording: first and last sample of each, and of its part whose log-probabilities are used.
 * A recording of usual length is one window.
 */
export function cutWindows(numSamples, { longest, step, tail, window, left, right }) {
  if (numSamples <= longest) {
    return [{ start: 0, end: numSamples, first: 0, last: numSamples }];
  }
  const windows = [];
  const hop = window - left - right;
  let used = 0;
  for (;;) {
    const end = (used + hop + right) * step + tail;
    const isLast = end >= numSamples;
    windows.push({
      start: Math.max(0, used - left) * step,
      end: isLast ? numSamples : end,
      first: used * step,
      last: isLast ? numSamples : (used + hop) * step,
    });
    if (isLast) {
      return windows;
    }
    used += hop;
  }
}

/** Frames of a long recording, cut into stretches that end where the network outputs blanks. */
export class Stretches {
  /** @param {number} framesPerSecond */
  constructor(framesPerSecond) {
    const count = (seconds) => Math.max(1, Math.round(seconds * framesPerSecond));
    this.blanks = count(BLANK_SECONDS);
    this.manyBlanks = count(LONG_BLANK_SECONDS);
    this.least = count(STRETCH_SECONDS);
    this.most = Math.max(2, Math.floor(MAX_STRETCH_SECONDS * framesPerSecond));
  }

  /** Split rows of log-probabilities: first row and the one after the last of each stretch. */
  split(logProbs, numTokens) {
    const numFrames = logProbs.length / numTokens;
    const isBlank = Array.from({ length: numFrames }, (_, row) => {
      return findBest(logProbs, row * numTokens, numTokens) === BLANK;
    });
    const stretches = [];
    let start = 0;
    while (start < numFrames) {
      const length = this.#findEnd(isBlank.slice(start, start + this.most)) ?? numFrames - start;
      stretches.push([start, start + length]);
      start += length;
    }
    return stretches;
  }

  #findEnd(isBlank) {
    for (const [first, last] of findRuns(isBlank)) {
      const wanted = first >= this.least ? this.blanks : this.manyBlanks;
      if (first > 0 && last - first >= wanted) {
        return first + Math.floor(wanted / 2);
      }
    }
    if (isBlank.length < this.most) {
      return null;
    }
    const [first, last] = findLongestRun(isBlank.slice(1));
    return last > first ? 1 + Math.floor((first + last) / 2) : this.most;
  }
}

/**
 * The transcript of a recording: text, segments of words, seconds.
 * @param {Float32Array} logProbs - Rows of all frames.
 * @param {Float32Array} samples
 * @param {object} about - The model's description.
 */
export function makeTranscript(logProbs, samples, about) {
  const numTokens = about.spellings.length;
  const isLong = about.windows && samples.length > about.windows.longest;
  const numFrames = logProbs.length / numTokens;
  const stretches = isLong ? new Stretches(1 / about.seconds_per_frame).split(logProbs, numTokens) : [[0, numFrames]];
  const step = Math.round(about.seconds_per_frame * about.sample_rate);
  const segments = [];
  for (const [first, last] of stretches) {
    const search = new GreedySearch(numTokens);
    search.feed(logProbs.subarray(first * numTokens, last * numTokens));
    const part = samples.subarray(first * step, last === numFrames ? samples.length : last * step);
    const origin = (first * step) / about.sample_rate;
    const words = makeWords(search, part, about).map((word) => {
      return { ...word, start: word.start + origin, end: word.end + origin };
    });
    if (words.length) {
      const text = words.map((word) => word.text).join(" ");
      segments.push({ start: words[0].start, end: words.at(-1).end, text, words });
    }
  }
  const text = segments.map((segment) => segment.text).join(" ");
  return { text, segments, seconds: samples.length / about.sample_rate };
}
