// Transcribe rows of log-probabilities by the scripts of the page: node decode_file.mjs PAGE_FOLDER INPUT_FOLDER

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, input] = process.argv.slice(2).map((folder) => pathToFileURL(`${folder}/`));
const { cutWindows, makeTranscript } = await import(new URL("decode.js", page));
const { toSrt, toVtt } = await import(new URL("subtitles.js", page));

const about = JSON.parse(readFileSync(new URL("model.json", input)));
const readFloats = (name) => new Float32Array(Uint8Array.from(readFileSync(new URL(name, input))).buffer);
const samples = readFloats("samples.f32");
const transcript = makeTranscript(readFloats("log_probs.f32"), samples, about);
const windows = cutWindows(samples.length, about.windows);
console.log(JSON.stringify({ transcript, windows, srt: toSrt(transcript.segments), vtt: toVtt(transcript.segments) }));
