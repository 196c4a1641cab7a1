"use strict";
const audio = document.getElementById("audio"), stack = document.getElementById("stack");
const cursor = document.getElementById("cursor"), readout = document.getElementById("readout");
const scroll = document.getElementById("scroll");
const start = Number(stack.dataset.start), seconds = Number(stack.dataset.seconds);
let stopAt = null;

function show() {
  const share = Math.min(1, audio.currentTime / seconds);
  cursor.style.left = 100 * share + "%";
  readout.textContent = (start + audio.currentTime).toFixed(2) + " s";
  const x = share * stack.clientWidth;
  if (!audio.paused && (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth - 40)) {
    scroll.scrollLeft = x - scroll.clientWidth / 3;
  }
}

function step() {
  if (stopAt !== null && audio.currentTime >= stopAt) { audio.pause(); stopAt = null; }
  show();
  if (!audio.paused) requestAnimationFrame(step);
}

function go(to) {
  stopAt = null;
  audio.currentTime = Math.max(0, Math.min(seconds, to));
  show();
}

audio.addEventListener("play", step);
audio.addEventListener("pause", () => { stopAt = null; show(); });
audio.addEventListener("seeked", show);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === audio) return;
  const onWord = event.target.classList && event.target.classList.contains("word");
  if (event.key === " " && !onWord) { if (audio.paused) { audio.play(); } else { audio.pause(); } }
  else if (event.key === "ArrowLeft") go(audio.currentTime - 0.1);
  else if (event.key === "ArrowRight") go(audio.currentTime + 0.1);
  else if (event.key === "Home") go(0);
  else return;
  event.preventDefault();
});

stack.addEventListener("click", (event) => {
  const word = event.target.closest(".word");
  if (word) {
    go(Number(word.dataset.start) - start);
    stopAt = Number(word.dataset.end) - start;
    audio.play();
  } else if (event.target.closest(".plot")) {
    go((event.clientX - stack.getBoundingClientRect().left) / stack.clientWidth * seconds);
  }
});

for (const figure of document.querySelectorAll(".states")) {
  const units = JSON.parse(figure.dataset.units), plot = figure.querySelector(".plot");
  plot.addEventListener("mousemove", (event) => {
    const box = plot.getBoundingClientRect();
    const row = Math.floor((1 - (event.clientY - box.top) / box.height) * units.length);
    const [unit, memory] = units[Math.max(0, Math.min(units.length - 1, row))];
    plot.title = "unit " + unit + ", forgets within " + memory + " s";
  });
}
show();
