// Asks the server again and again for what is new, and shows it. Data becomes text, never markup.

import { bestWords, draw, evaluationWords, valueWords } from "./plots.js";

const IMPATIENT = 50; // milliseconds to the next question where more is ready
const PATIENCE = 15000;
const MOST_ROWS = 300;
const MOST_CHOSEN = 16;
const RANKS = { running: 0, waiting: 1, unreadable: 3, vanished: 3 }; // in the list; others 2, the newest first
const NOT_FAULTS = ["ended", "resumed", "speculated"];
const PLAIN = { value: "value", evaluations: "evaluations", sign: 1, scores: [], quiet: [] }; // of runs that bring no words

const runs = new Map(); // by id: {summary, curves, events, point, gone}
const rows = new Map(); // by id: a row of the table
const cards = new Map(); // by id: an article
const places = new Map(); // by id: number of the colour of a run that is chosen
let since = "";
let now = 0; // by the clock of the server
let interval = 2; // seconds between two questions, as the server has it
let timer = 0;
let asking = false;
let wished = location.hash.slice(1).split(",").filter(Boolean); // chosen before the page was loaded again
let plotly; // its version, null where it is not installed

const $ = (selector, within = document) => within.querySelector(selector);

// ---- asking

async function ask() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  let isEager = false;
  try {
    const chosen = [...places.keys()].map((id) => `${id}:${runs.get(id)?.curves?.cursor ?? ""}`);
    const query = new URLSearchParams({ since, runs: chosen.join(",") });
    const answer = await fetch(`api?${query}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const news = answer.status === 204 ? null : await answer.json();
    connection("live", "live");
    if (news !== null) {
      take(news);
      isEager = news.more;
    }
  } catch (error) {
    const reason = error instanceof TypeError ? "the server stopped" : error.message;
    connection("lost", `${reason}; trying again`);
  }
  asking = false;
  timer = setTimeout(ask, isEager ? IMPATIENT : 1000 * interval);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    connection("paused", "paused");
  } else {
    ask();
  }
});

function connection(state, text) {
  if (document.hidden && state !== "paused") return; // an answer that was on its way
  const element = $("#connection");
  element.dataset.state = state;
  say(element, text);
}

function take(news) {
  since = news.since;
  now = news.now;
  interval = news.interval;
  if (news.ids !== null) {
    const there = new Set(news.ids);
    for (const [id, run] of runs) run.gone = !there.has(id);
  }
  for (const [id, summary] of Object.entries(news.runs)) {
    const run = runs.get(id) ?? { curves: null, events: [], point: [] };
    runs.set(id, { ...run, summary, gone: false });
  }
  for (const [id, detail] of Object.entries(news.details)) {
    const run = runs.get(id);
    run.curves = joined(run.curves, detail);
    run.events = detail.events;
    run.point = detail.point;
  }
  if (places.size === 0) chooseFirst();
  if (news.plotly !== plotly) loadPlotly(news.plotly);
  show(news);
}

// What the server sends begins where what is here ends, or at the beginning.
function joined(curves, news) {
  const [points, times] = news.start;
  const columns = {};
  for (const [name, values] of Object.entries(news.columns)) {
    columns[name] = (curves?.columns[name] ?? []).slice(0, points).concat(values);
  }
  const seconds = (curves?.seconds ?? []).slice(0, times).concat(news.seconds);
  return { columns, seconds, last: news.last, cursor: news.cursor, stride: news.stride };
}

function loadPlotly(version) {
  plotly = version;
  const message = $("#no-plots");
  message.hidden = version !== null;
  if (version === null) {
    message.textContent = "There are no plots without plotly. Install it and start the page again:\npip install 'gradfree[serve]'";
    return;
  }
  const script = document.createElement("script");
  script.src = `plotly.js?${encodeURIComponent(version)}`;
  script.addEventListener("load", () => plot(true));
  document.head.append(script);
}

// ---- choosing

function chooseFirst() {
  const found = wished.filter((id) => runs.has(id));
  const first = sorted()[0];
  for (const id of found.length ? found : first ? [first] : []) place(id);
}

function place(id) {
  const taken = new Set(places.values());
  let number = 0;
  while (taken.has(number)) number += 1;
  places.set(id, number);
}

function choose(id, alone) {
  if (alone) {
    places.clear();
    place(id);
  } else if (places.has(id)) {
    if (places.size > 1) places.delete(id);
  } else if (places.size < MOST_CHOSEN) {
    place(id);
  }
  for (const card of cards.values()) card.open = places.size === 1;
  wished = [...places.keys()];
  history.replaceState(null, "", `#${wished.join(",")}`);
  show();
  ask();
}

// ---- showing

function show(news) {
  const isEmpty = runs.size === 0;
  $("#list").hidden = isEmpty;
  $("#empty").hidden = !isEmpty;
  if (news) {
    say($("#folders"), news.folders.join(", "));
    say($("#empty"), `Waiting for runs in\n${news.folders.join("\n")}`);
    const limit = news.limit === null ? "" : `Only the first ${count(news.limit)} folders were looked into. `;
    $("#rest").dataset.limit = limit;
  }
  showRows();
  showCards();
  plot();
  const busy = [...runs.values()].filter((run) => status(run) === "running").length;
  document.title = busy ? `${busy} running · Runs` : "Runs";
}

function sorted() {
  const words = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (run) => {
    const text = [run.summary.name, run.summary.method, run.summary.objective, status(run)].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const rank = (run) => RANKS[status(run)] ?? 2;
  return [...runs]
    .filter(([, run]) => matches(run))
    .sort(([, a], [, b]) =>
      rank(a) - rank(b) || (b.summary.started < a.summary.started ? -1 : 1) || a.summary.name.localeCompare(b.summary.name))
    .map(([id]) => id);
}

function showRows() {
  const filter = $("#filter");
  filter.hidden = runs.size <= 8;
  const order = sorted();
  const shown = order.slice(0, MOST_ROWS);
  const rest = order.length - shown.length;
  const more = rest > 0 ? `${count(rest)} more runs are not listed: filter to find them.` : "";
  const hint = ($("#rest").dataset.limit ?? "") + more;
  $("#rest").hidden = !hint;
  say($("#rest"), hint);
  const said = shown.map((id) => words(runs.get(id)));
  say($("#best-heading"), bestWords(said.length ? said : [PLAIN]));
  say($("#evaluations-heading"), capital(evaluationWords(said.length ? said : [PLAIN])));
  const elements = shown.map(row);
  const body = $("#list tbody");
  if (elements.some((element, index) => element !== body.children[index]) || body.children.length !== elements.length) {
    body.replaceChildren(...elements);
  }
}

function row(id) {
  if (!rows.has(id)) {
    const element = $("#row").content.firstElementChild.cloneNode(true);
    $(".name", element).addEventListener("click", () => choose(id, true));
    $("input", element).addEventListener("change", () => choose(id, false));
    rows.set(id, element);
  }
  const element = rows.get(id);
  const run = runs.get(id);
  const { summary } = run;
  say($(".name", element), summary.name);
  say($(".choice .unseen", element), `Compare ${summary.name}`);
  say($(".about", element), about(summary));
  showStatus($(".status", element), run);
  say($(".best", element), number(summary.best));
  say($(".evaluations span", element), evaluations(summary));
  const bar = $("progress", element);
  bar.hidden = !summary.budget || summary.nfev === null;
  bar.value = bar.hidden ? 0 : Math.min(1, summary.nfev / summary.budget);
  say($(".rate", element), summary.rate === null || run.gone ? "" : number(summary.rate, 3));
  say($(".left", element), summary.left === null || run.gone ? "" : duration(summary.left));
  $("input", element).checked = places.has(id);
  element.setAttribute("aria-selected", places.has(id));
  element.classList.toggle("gone", run.gone);
  paint($(".swatch", element), id);
  return element;
}

function showCards() {
  for (const [id, element] of cards) {
    if (!places.has(id)) {
      element.remove();
      cards.delete(id);
    }
  }
  for (const id of places.keys()) {
    const run = runs.get(id);
    if (!run) continue;
    if (!cards.has(id)) {
      const element = $("#card").content.firstElementChild.cloneNode(true);
      cards.set(id, element);
      $("#cards").append(element);
      element.open = places.size === 1;
    }
    showCard(cards.get(id), id, run);
  }
}

function showCard(card, id, run) {
  const { summary } = run;
  paint($(".swatch", card), id);
  say($("h2", card), summary.name);
  showStatus($(".status", card), run);
  say($(".about", card), about(summary));
  const heard = summary.updated ? `, last heard of ${duration(Math.max(0, now - summary.updated))} ago` : "";
  say($(".note", card), run.gone ? "Its directory is gone; this is the last that was seen of it."
    : summary.note + (["waiting", "stopped"].includes(summary.status) ? heard : ""));
  $(".note", card).hidden = !$(".note", card).textContent;
  showFacts($("dl", card), facts(run));
  const point = $(".point", card);
  point.hidden = run.point.length === 0;
  if (point.dataset.shown !== JSON.stringify(run.point)) {
    point.dataset.shown = JSON.stringify(run.point);
    $("tbody", point).replaceChildren(...run.point.map(([name, value]) => {
      const line = document.createElement("tr");
      line.append(made("td", name), made("td", typeof value === "number" ? number(value, 7) : value));
      return line;
    }));
  }
  const events = $(".events", card);
  events.hidden = run.events.length === 0;
  if (events.dataset.shown !== JSON.stringify(run.events)) {
    events.dataset.shown = JSON.stringify(run.events);
    say($("summary", events), run.events.length < 12 ? "Events" : "Last events");
    $("ol", events).replaceChildren(...[...run.events].reverse().map(eventLine));
  }
}

function eventLine(event) {
  const line = document.createElement("li");
  const text = document.createElement("span");
  text.append(made("b", event.event), event.text ? ` ${event.text}` : "");
  line.append(made("time", moment(event.time)), text);
  line.classList.toggle("fault", !NOT_FAULTS.includes(event.event));
  return line;
}

function facts(run) {
  const { summary } = run;
  const said = [words(run)];
  const found = [[bestWords(said), number(summary.best, 6)]];
  const share = summary.budget && summary.nfev !== null ? `${Math.floor((100 * summary.nfev) / summary.budget)}%` : "";
  found.push([capital(evaluationWords(said)), count(summary.nfev), summary.budget ? `of ${count(summary.budget)}, ${share}` : ""]);
  if (summary.rate !== null && !run.gone) found.push(["Rate", number(summary.rate, 3), "a second"]);
  if (summary.left !== null && !run.gone) found.push(["Time left", duration(summary.left)]);
  const seconds = run.curves?.last.seconds ?? summary.seconds;
  if (seconds !== null) found.push(["At work for", duration(seconds), summary.resumed ? `resumed ${times(summary.resumed)}` : ""]);
  if (summary.workers !== null) {
    const lost = summary.lost + summary.restarts ? `${summary.lost} lost, ${summary.restarts} replaced` : "";
    found.push(["Workers", `${summary.workers}`, [summary.executor, lost].filter(Boolean).join(", "), Boolean(lost)]);
  }
  const trouble = [
    summary.retries ? `${count(summary.retries)} retried` : "",
    summary.quarantined ? `${count(summary.quarantined)} given up` : "",
  ].filter(Boolean).join(", ");
  if (summary.failed || trouble) found.push(["Failed", count(summary.failed ?? 0), trouble, true]);
  if (summary.violation) found.push(["Violation", number(summary.violation)]);
  return found;
}

function showFacts(list, found) {
  const shown = JSON.stringify(found);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...found.map(([name, value, aside, alarm]) => {
    const pair = document.createElement("div");
    const text = made("dd", `${value} `);
    if (aside) text.append(made("small", aside));
    text.classList.toggle("alarm", Boolean(alarm));
    pair.append(made("dt", name), text);
    return pair;
  }));
}

function plot(isAsked = false) {
  const chosen = [...places]
    .map(([id, number]) => ({ id, number, run: runs.get(id) }))
    .filter(({ run }) => run?.curves && Object.keys(run.curves.columns).length)
    .map(({ id, number, run }) => ({ id, place: number, name: run.summary.name, curves: run.curves, words: words(run) }));
  const said = chosen.length ? chosen.map((run) => run.words) : [PLAIN];
  say($("#values-heading"), capital(valueWords(said)));
  say($("#evaluations-axis"), evaluationWords(said));
  draw(chosen, { x: $("#x :checked").value, scale: $("#scale :checked").value }, isAsked);
}

// ---- words and numbers

function words(run) {
  return run.summary.words ?? PLAIN;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function status(run) {
  return run.gone ? "vanished" : run.summary.status;
}

function showStatus(element, run) {
  element.dataset.status = status(run);
  element.title = run.gone ? "" : run.summary.note;
  say(element, status(run));
}

function about(summary) {
  const dim = summary.dim === null ? "" : `${count(summary.dim)} variable${summary.dim === 1 ? "" : "s"}`;
  return [summary.method, summary.objective, dim].filter(Boolean).join(" · ") || summary.note;
}

function evaluations(summary) {
  if (summary.nfev === null) return "";
  return summary.budget ? `${count(summary.nfev)} of ${count(summary.budget)}` : count(summary.nfev);
}

function paint(swatch, id) {
  const place = places.get(id);
  const colour = place === undefined ? "" : `var(--run-${place % 8})`;
  swatch.style.background = place >= 8 ? `repeating-linear-gradient(90deg, ${colour} 0 4px, transparent 4px 6px)` : colour;
  swatch.style.borderColor = colour;
}

function number(value, digits = 5) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6)
    ? value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e")
    : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en").replaceAll(",", "\u202f");
}

function times(value) {
  return value === 1 ? "once" : value === 2 ? "twice" : `${count(value)} times`;
}

function duration(seconds) {
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([unit]) => seconds >= unit);
  const [[unit, name], [small, smallName] = [0, ""]] = parts.slice(first, first + 2);
  const whole = Math.floor(seconds / unit);
  const rest = small ? Math.floor((seconds - whole * unit) / small) : 0;
  return rest ? `${whole} ${name} ${rest} ${smallName}` : `${whole} ${name}`;
}

function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  const day = time.toDateString() === new Date().toDateString() ? {} : { day: "numeric", month: "short" };
  return time.toLocaleString("en-GB", { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function made(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

// ---- at work

for (const input of document.querySelectorAll(".controls input")) input.addEventListener("change", () => plot(true));
$("#filter").addEventListener("input", showRows);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot(true));
addEventListener("hashchange", () => {
  wished = location.hash.slice(1).split(",").filter(Boolean);
  places.clear();
  chooseFirst();
  show();
  ask();
});
ask();
