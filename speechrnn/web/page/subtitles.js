// Subtitles, by the default rules of speechrnn/recognition/subtitles.py.

const CUE_PAUSE_SECONDS = 1.5;
const CUE_SECONDS = 7;
const LINE_WIDTH = 42;
const LINE_COUNT = 2;

/** Words grouped into subtitles of at most two lines of 42 characters and 7 seconds. */
function cutCues(segments) {
  const cues = [];
  for (const segment of segments) {
    let lines = [];
    for (const word of segment.words) {
      const line = lines.at(-1);
      const fits = line !== undefined && lengthOf(line) + 1 + lengthOf([word]) <= LINE_WIDTH;
      const isEnd =
        line !== undefined &&
        (word.start - line.at(-1).end >= CUE_PAUSE_SECONDS || word.end - lines[0][0].start > CUE_SECONDS);
      if (isEnd || (line !== undefined && !fits && lines.length === LINE_COUNT)) {
        cues.push(lines);
        lines = [[word]];
      } else if (fits) {
        line.push(word);
      } else {
        lines.push([word]);
      }
    }
    cues.push(lines);
  }
  return cues.map((lines) => {
    const start = Math.round(1000 * lines[0][0].start);
    const end = Math.max(Math.round(1000 * lines.at(-1).at(-1).end), start + 1);
    return { start, end, text: lines.map((line) => line.map((word) => word.text).join(" ")).join("\n") };
  });
}

function lengthOf(words) {
  return words.reduce((sum, word) => sum + [...word.text].length, words.length - 1);
}

function formatClock(milliseconds, point) {
  const pad = (value, width) => String(value).padStart(width, "0");
  const seconds = Math.floor(milliseconds / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${pad(hours, 2)}:${pad(minutes, 2)}:${pad(seconds % 60, 2)}${point}${pad(milliseconds % 1000, 3)}`;
}

/** SubRip subtitles; it has no escapes, so mark-up characters get their full-width form. */
export function toSrt(segments) {
  const wide = { "<": "\uff1c", ">": "\uff1e", "{": "\uff5b", "}": "\uff5d" };
  const blocks = cutCues(segments).map(({ start, end, text }, number) => {
    const plain = text.replace(/[<>{}]/g, (character) => wide[character]);
    return `${number + 1}\n${formatClock(start, ",")} --> ${formatClock(end, ",")}\n${plain}\n`;
  });
  return blocks.join("\n");
}

/** WebVTT subtitles. */
export function toVtt(segments) {
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const blocks = cutCues(segments).map(({ start, end, text }) => {
    const escaped = text.replace(/[&<>]/g, (character) => escapes[character]);
    return `${formatClock(start, ".")} --> ${formatClock(end, ".")}\n${escaped}\n`;
  });
  return ["WEBVTT\n", ...blocks].join("\n");
}
