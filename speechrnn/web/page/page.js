// The page: takes a recording or the microphone, shows progress and the transcript.

import { decodeFile, Microphone } from "./audio.js";
import { toSrt, toVtt } from "./subtitles.js";

const UNSURE = 0.5;
const SILENT_PEAK = 1e-3;

const find = (id) => document.getElementById(id);
let worker;
let about = null;
let transcript = null;
let microphone = null;
let recorded = { parts: [], count: 0, peak: 0 };
let isBusy = true;
let name = "transcript";

function startWorker() {
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => HANDLERS[data.type](data);
  worker.onerror = () => fail("The page cannot start its worker; copy the whole exported folder, and use a new browser");
  setBusy(true, "Loading the model …");
  worker.postMessage({ type: "load" });
}

const HANDLERS = {
  ready({ about: description }) {
    about = description;
    showAbout();
    setBusy(false, "Ready");
  },
  progress({ done }) {
    find("progress").value = done;
  },
  partial({ text, seconds }) {
    find("status").textContent = `Recording, ${formatTime(seconds)}`;
    showText(text);
  },
  result({ transcript: found, elapsed }) {
    const count = found.segments.reduce((sum, segment) => sum + segment.words.length, 0);
    const time = elapsed === null ? "" : `, transcribed in ${elapsed.toFixed(1)} s`;
    showTranscript(found);
    setBusy(false, `${count} ${count === 1 ? "word" : "words"}, ${found.seconds.toFixed(1)} s of audio${time}`);
  },
  error({ during, message }) {
    if (during === "load") {
      isBusy = true;
      find("progress").hidden = true;
      find("status").textContent = "The model is not loaded";
      showError(message);
      return;
    }
    closeMicrophone();
    fail(message);
  },
};

function setBusy(busy, status, { canCancel = false } = {}) {
  isBusy = busy;
  find("status").textContent = status;
  find("file").disabled = busy;
  find("record").disabled = busy && microphone === null;
  find("progress").hidden = !busy || microphone !== null;
  find("progress").removeAttribute("value");
  find("cancel").hidden = !canCancel;
}

function showError(message) {
  find("error").textContent = message;
  find("error").hidden = false;
}

function fail(message) {
  setBusy(false, "Ready");
  showError(message);
}

function clear() {
  find("error").hidden = true;
  find("result").hidden = true;
  transcript = null;
  showPlayer(null);
}

function showPlayer(blob) {
  const player = find("player");
  if (player.src) {
    URL.revokeObjectURL(player.src);
    player.removeAttribute("src");
    player.load();
  }
  player.hidden = blob === null;
  if (blob !== null) {
    player.src = URL.createObjectURL(blob);
  }
}

function showAbout() {
  const rate = `${about.sample_rate / 1000} kHz`;
  const parts = [`Model ${about.name}`, ...about.languages, rate, `${about.num_parameters.toLocaleString("en")} weights`];
  const sources = about.corpora.map((each) => [each.corpus, each.license, each.attribution].filter(Boolean).join(", "));
  const trained = sources.length ? ` Trained on: ${sources.join("; ")}.` : "";
  find("about").textContent = `${parts.join(", ")}.${trained}`;
  find("transcript").lang = about.languages.length === 1 ? about.languages[0] : "";
}

function showText(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text || "…";
  find("transcript").replaceChildren(paragraph);
  find("actions").hidden = true;
  find("legend").hidden = true;
  find("result").hidden = false;
}

function showTranscript(found) {
  transcript = found;
  const paragraphs = found.segments.map((segment) => {
    const paragraph = document.createElement("p");
    if (found.segments.length > 1) {
      const time = document.createElement("time");
      time.textContent = formatTime(segment.start);
      paragraph.append(time);
    }
    segment.words.forEach((word, number) => paragraph.append(number ? " " : "", makeWord(word)));
    return paragraph;
  });
  if (!paragraphs.length) {
    showText("No words were recognised.");
    return;
  }
  find("transcript").replaceChildren(...paragraphs);
  find("legend").hidden = !find("transcript").querySelector(".is-unsure");
  find("actions").hidden = false;
  find("result").hidden = false;
}

function makeWord(word) {
  const span = document.createElement("span");
  span.textContent = word.text;
  span.title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s, confidence ${Math.round(100 * word.confidence)} %`;
  span.classList.toggle("is-unsure", word.confidence < UNSURE);
  return span;
}

function formatTime(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const [hours, minutes, rest] = parts.map((part) => String(part).padStart(2, "0"));
  return parts[0] ? `${hours}:${minutes}:${rest}` : `${minutes}:${rest}`;
}

async function transcribeFile(file) {
  if (isBusy || !file) {
    return;
  }
  clear();
  name = file.name.replace(/\.[^.]*$/, "") || "transcript";
  setBusy(true, `Reading ${file.name} …`);
  try {
    const samples = await decodeFile(file, about.sample_rate);
    showPlayer(file);
    send(samples);
  } catch (error) {
    fail(error.message);
  }
}

function send(samples) {
  setBusy(true, `Transcribing ${(samples.length / about.sample_rate).toFixed(1)} s …`, { canCancel: true });
  worker.postMessage({ type: "transcribe", samples }, [samples.buffer]);
}

async function startRecording() {
  clear();
  name = "recording";
  recorded = { parts: [], count: 0, peak: 0 };
  setBusy(true, "Opening the microphone …");
  if (about.stream) {
    worker.postMessage({ type: "begin" });
  }
  try {
    microphone = await Microphone.open(about.sample_rate, takeSamples);
  } catch (error) {
    fail(error.message);
    return;
  }
  setBusy(true, "Recording");
  find("record").textContent = "Stop";
  find("record").setAttribute("aria-pressed", "true");
  find("level").hidden = false;
}

function takeSamples(samples) {
  if (microphone === null || !samples.length) {
    return;
  }
  const peak = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  recorded.peak = Math.max(recorded.peak, peak);
  find("level").value = Math.max(peak, 0.9 * find("level").value);
  if (about.stream) {
    worker.postMessage({ type: "feed", samples }, [samples.buffer]);
  } else {
    recorded.parts.push(samples);
    recorded.count += samples.length;
    find("status").textContent = `Recording, ${formatTime(recorded.count / about.sample_rate)}`;
  }
}

function closeMicrophone() {
  microphone?.stop();
  microphone = null;
  find("record").textContent = "Record";
  find("record").setAttribute("aria-pressed", "false");
  find("level").hidden = true;
}

function stopRecording() {
  closeMicrophone();
  if (recorded.peak < SILENT_PEAK) {
    if (about.stream) {
      restart();
    } else {
      setBusy(false, "Ready");
    }
    showError("The microphone recorded silence; check its level and whether it is muted");
  } else if (about.stream) {
    setBusy(true, "Finishing …");
    worker.postMessage({ type: "end" });
  } else {
    const samples = new Float32Array(recorded.count);
    let place = 0;
    for (const part of recorded.parts) {
      samples.set(part, place);
      place += part.length;
    }
    send(samples);
  }
}

function restart() {
  worker.terminate();
  find("result").hidden = true;
  startWorker();
}

function save(ending, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
  link.download = `${name}.${ending}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copyText() {
  try {
    await navigator.clipboard.writeText(transcript.text);
    find("status").textContent = "Copied";
  } catch {
    showError("This browser does not allow copying here; select the text instead");
  }
}

function dragOver(event) {
  event.preventDefault();
  find("input").classList.toggle("is-over", event.type === "dragover");
}

function setUp() {
  find("file").addEventListener("change", ({ target }) => {
    transcribeFile(target.files[0]);
    target.value = ""; // the same file can be chosen again
  });
  find("record").addEventListener("click", () => (microphone === null ? startRecording() : stopRecording()));
  find("cancel").addEventListener("click", restart);
  find("copy").addEventListener("click", copyText);
  find("save-txt").addEventListener("click", () => save("txt", `${transcript.text}\n`));
  find("save-srt").addEventListener("click", () => save("srt", toSrt(transcript.segments)));
  find("save-vtt").addEventListener("click", () => save("vtt", toVtt(transcript.segments)));
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, dragOver);
  }
  document.addEventListener("drop", ({ dataTransfer }) => transcribeFile(dataTransfer.files[0]));
  startWorker();
}

setUp();
