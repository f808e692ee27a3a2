// Draws the curves of the chosen runs by plotly: values on top, then every diagnostic in a plot of its own.

const REST = 8; // how many times longer to rest than drawing took: a page is not to slow down what it shows
const LONGEST_REST = 8000;
const NEAR = "500px"; // of the window: plots that are further away are drawn when they come close
const NOT_DIAGNOSTICS = ["step", "nfev", "best", "value", "median"];
const COUNTS = ["own failed"]; // never by logarithm
const HIDDEN_WHERE_ZERO = ["failed", "violation"]; // of all kinds of runs
const UNITS = [[86400, "days"], [3600, "hours"], [60, "minutes"], [1, "seconds"]];
const FEW = 40; // points that are shown as such

const canvases = new Map(); // by key: where a plot is, whether that is near the window, and how to draw it
let wanted = null;
let resting = 0;
let isStale = false;
let shown = ""; // runs that are drawn

// What the best values of some runs are called; where they are of several kinds, all that they are.
export function bestWords(words) {
  return `Best ${joined(words.map(({ value }) => value))}`;
}

export function valueWords(words) {
  return joined(words.map(({ value, values }) => values ?? `${value}s`));
}

export function evaluationWords(words) {
  return joined(words.map(({ evaluations }) => evaluations));
}

function joined(words) {
  return [...new Set(words)].sort().join(" or ");
}

// Draws soon, and the newest only, where this is called again and again; at once what somebody asked for.
export function draw(chosen, options, isAsked = false) {
  wanted = [chosen, options];
  isStale ||= isAsked;
  const ids = chosen.map(({ id }) => id).join();
  const section = document.querySelector("#plots");
  section.hidden = !window.Plotly || chosen.length === 0;
  if (section.hidden || (resting && !isAsked && ids === shown)) return;
  clearTimeout(resting);
  shown = ids;
  resting = setTimeout(() => {
    const began = performance.now();
    drawAll(...wanted);
    wanted = null;
    resting = setTimeout(() => {
      resting = 0;
      if (wanted !== null) draw(...wanted);
    }, Math.min(LONGEST_REST, REST * (performance.now() - began)));
  });
}

function drawAll(runs, { x, scale }) {
  const words = runs.map((run) => run.words);
  const [best, counted] = [bestWords(words), evaluationWords(words)];
  const isScore = (name) => words.some(({ scores }) => scores.includes(name));
  const plots = [
    ...["nfev", "seconds"].map((axis) => ({
      key: `best ${axis}`,
      title: `${best} against ${axis === "nfev" ? counted : "time"}`,
      within: "#values",
      axis,
      isScore: isScore("best"),
      traces: runs.flatMap((run) => values(run, axis, runs.length === 1)),
    })),
    ...names(runs).map((name) => ({
      key: `own ${name}`,
      title: name.replaceAll("_", " "),
      within: "#diagnostics",
      axis: x,
      isScore: isScore(name),
      traces: runs.filter((run) => name in run.curves.columns).map((run) => trace(run, x, name)),
    })),
  ];
  const keys = new Set(plots.map(({ key }) => key));
  for (const [key, { figure, canvas }] of canvases) {
    if (!keys.has(key)) {
      if (canvas.data) window.Plotly.purge(canvas);
      figure.remove();
      canvases.delete(key);
    }
  }
  for (const plot of plots) drawOne(plot, scale, runs);
  isStale = false;
  showThinning(runs);
}

// The lowest value, or the highest score, and the median of each step, or what a kind of run has instead, if there are
// not several runs to tell apart, and the best.
function values(run, axis, isAlone) {
  const best = trace(run, axis, "best", { shape: "hv", width: 2 });
  if (!isAlone) return [best];
  const faint = { colour: "--plain", width: 1 };
  const labels = run.words.lines
    ?? { median: "median of a step", value: run.words.sign < 0 ? "highest of a step" : "lowest of a step" };
  const others = Object.keys(labels)
    .filter((name) => name in run.curves.columns)
    .map((name) => trace(run, axis, name, name === "value" ? { ...faint, shape: "hv" } : { ...faint, dash: "dot" }));
  for (const other of others) other.name = labels[other.meta];
  return [...others, { ...best, name: "best so far" }];
}

function trace(run, axis, name, { shape = "linear", width = 1.5, colour, dash } = {}) {
  const { columns, seconds, last } = run.curves;
  const ordinates = axis === "seconds" ? seconds : columns[axis] ?? [];
  const length = Math.min(ordinates.length, columns[name].length);
  const x = ordinates.slice(0, length);
  const y = columns[name].slice(0, length);
  // The last step of all is rarely one of those that are kept.
  if (last[axis] !== undefined && last[axis] > (x.at(-1) ?? -Infinity) && last[name] !== undefined) {
    x.push(last[axis]);
    y.push(last[name]);
  }
  const paint = colourOf(colour ?? `--run-${run.place % 8}`);
  const isAlone = y.map((value, i) => value !== null && (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null);
  const hasMarkers = y.length <= FEW || isAlone.includes(true);
  return {
    x,
    y,
    name: escaped(run.name),
    meta: name,
    type: "scatter",
    mode: hasMarkers ? "lines+markers" : "lines",
    connectgaps: false,
    line: { color: paint, width, shape, dash: dash ?? (run.place >= 8 ? "dash" : "solid"), simplify: true },
    marker: { color: paint, size: y.length <= FEW ? 4 : isAlone.map((alone) => (alone ? 4 : 0)) },
  };
}

function drawOne({ key, title, within, axis, isScore, traces }, scale, runs) {
  if (!canvases.has(key)) canvases.set(key, made(within, title));
  const place = canvases.get(key);
  const { figure, canvas, heading, legend } = place;
  place.draw = () => drawOne({ key, title, within, axis, isScore, traces }, scale, runs);
  if (!place.isNear) return;
  const isWide = within === "#values";
  const { lowest, highest, least } = magnitudes(traces);
  const fits = highest > 50 * least && (isWide ? lowest >= 0 : lowest > 0) && !COUNTS.includes(key) && !isScore;
  const isLog = isWide && scale !== "auto" ? scale === "log" : fits;
  if (isLog && lowest <= 0) {
    for (const one of traces) one.y = one.y.map((value) => (value > 0 ? value : null));
  }
  const print = JSON.stringify([traces.map((t) => [t.x.length, t.x.at(-1), t.y.at(-1), t.line, t.name]), isLog, axis,
    runs.map(({ id, curves }) => [id, curves.cursor])]);
  if (figure.dataset.drawn === print && !isStale) return;
  figure.dataset.drawn = print;
  heading.textContent = title;
  const aside = document.createElement("small");
  aside.textContent = isLog ? ` log${lowest <= 0 ? ", above 0" : ""}` : "";
  heading.append(aside);
  const [unit, label] = unitOf(axis, traces, evaluationWords(runs.map((run) => run.words)));
  for (const one of traces) one.x = unit === 1 ? one.x : one.x.map((value) => (value === null ? null : value / unit));
  if (isWide) legend.replaceChildren(...traces.map((one, i) => entry(one, runs.length === 1 ? one.name : runs[i].name)));
  const line = { gridcolor: colourOf("--line"), zerolinecolor: colourOf("--line"), linecolor: colourOf("--line") };
  const spike = { spikecolor: colourOf("--plain"), spikethickness: 1, spikedash: "solid" };
  const layout = {
    autosize: true,
    margin: { l: 12, r: 14, t: 8, b: isWide ? 34 : 20 },
    paper_bgcolor: colourOf("--panel"),
    plot_bgcolor: colourOf("--panel"),
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colourOf("--faint") },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colourOf("--panel"), bordercolor: colourOf("--line"), font: { color: colourOf("--ink") }, namelength: 24 },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    uirevision: `${axis} ${isLog} ${runs.map(({ id }) => id)}`,
    xaxis: { ...line, ...spike, automargin: true, title: isWide ? { text: label, standoff: 4 } : {}, nticks: isWide ? 7 : 5, exponentformat: "SI", rangemode: "tozero" },
    yaxis: { ...line, automargin: true, showspikes: false, type: isLog ? "log" : "linear", nticks: isWide ? 7 : 5, tickfont: { size: isLog ? 10 : 12 }, exponentformat: "power", hoverformat: ".6~g" },
  };
  window.Plotly.react(canvas, traces, layout, { displayModeBar: false, responsive: true });
}

function made(within, title) {
  const figure = document.createElement("div");
  const heading = document.createElement("h3");
  const legend = document.createElement("div");
  const canvas = document.createElement("div");
  figure.className = "plot";
  legend.className = "legend";
  canvas.className = "canvas";
  heading.textContent = title;
  figure.append(heading, legend, canvas);
  document.querySelector(within).append(figure);
  const place = { figure, heading, legend, canvas, isNear: false, draw: null };
  const observer = new IntersectionObserver(([{ isIntersecting }]) => {
    place.isNear = isIntersecting;
    if (isIntersecting) place.draw();
  }, { rootMargin: NEAR });
  observer.observe(figure);
  return place;
}

function entry({ line }, name) {
  const element = document.createElement("span");
  const sample = document.createElement("i");
  sample.style.borderTopColor = line.color;
  sample.style.borderTopWidth = `${line.width}px`;
  sample.style.borderTopStyle = { dot: "dotted", dash: "dashed", solid: "solid" }[line.dash];
  element.append(sample, name);
  return element;
}

function unitOf(axis, traces, counted) {
  if (axis !== "seconds") return [1, axis === "nfev" ? counted : "steps"];
  const longest = Math.max(0, ...traces.map(({ x }) => x.at(-1) ?? 0));
  const [unit, label] = UNITS.find(([seconds]) => longest > 2 * seconds) ?? [1, "seconds"];
  return [unit, `time (${label})`];
}

// Whatever scalars the runs have, in the order in which they write them.
function names(runs) {
  const found = new Set(runs.flatMap((run) => Object.keys(run.curves.columns)));
  const quiet = [...HIDDEN_WHERE_ZERO, ...runs.flatMap((run) => run.words.quiet)];
  return [...found].filter((name) => {
    if (NOT_DIAGNOSTICS.includes(name) || runs.every((run) => name in (run.words.lines ?? {}))) return false;
    const all = runs.flatMap((run) => run.curves.columns[name] ?? []);
    return all.some((value) => value !== null && (value !== 0 || !quiet.includes(name)));
  });
}

// Returns the extremes, and the least value that has a logarithm.
function magnitudes(traces) {
  let [lowest, highest, least] = [Infinity, -Infinity, Infinity];
  for (const { y } of traces) {
    for (const value of y) {
      if (value === null) continue;
      if (value < lowest) lowest = value;
      if (value > highest) highest = value;
      if (value > 0 && value < least) least = value;
    }
  }
  return { lowest, highest, least };
}

function showThinning(runs) {
  const hint = document.querySelector("#thinned");
  const strides = runs.map(({ curves }) => curves.stride);
  const most = Math.max(...strides);
  hint.hidden = most === 1;
  hint.textContent = most === 1 ? "" : `Of long runs every ${most}th step is drawn${runs.length > 1 ? ", or more" : ""}.`;
}

function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Plotly takes some markup in texts. Names are no markup.
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
