"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  async function unpackText(id) {
    const packed = byId(id).textContent.trim();
    if (!packed) return "";
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  async function unpack(id) {
    const text = await unpackText(id);
    return text ? JSON.parse(text) : null;
  }

  /* Charts: drawn when they come near, in the colours of light or dark. */

  const COLORS = {
    light: {
      "@1": "#0b57d0", "@2": "#c2410c", "@3": "#15803d", "@4": "#7e22ce", "@5": "#a16207", "@6": "#0e7490",
      "@good": "#136c34", "@bad": "#b42318", "@muted": "#737d89", "@text": "#1b1f24", "@paper": "#f5f6f8",
      "@low": "#f1f6ff", "@high": "#8fb4f5", line: "#d5dae0",
    },
    dark: {
      "@1": "#8ab4f8", "@2": "#fdba74", "@3": "#7ee2a0", "@4": "#d8b4fe", "@5": "#fde047", "@6": "#67e8f9",
      "@good": "#7ee2a0", "@bad": "#ffa199", "@muted": "#8b96a3", "@text": "#e7eaee", "@paper": "#191d23",
      "@low": "#1b2536", "@high": "#35589c", line: "#323a44",
    },
  };

  function colored(value, colors) {
    if (typeof value === "string") return value[0] === "@" && value in colors ? colors[value] : value;
    if (Array.isArray(value)) return value.map((one) => colored(one, colors));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, colored(one, colors)]));
    }
    return value;
  }

  function axis(given, colors) {
    return {
      gridcolor: colors.line, zerolinecolor: colors.line, linecolor: colors.line, automargin: true, ...given,
      title: { standoff: 8, ...(given && given.title) },
    };
  }

  function layoutOf(figure, colors) {
    const given = colored(figure.layout || {}, colors);
    const axes = Object.keys(given).filter((name) => /^[xy]axis\d*$/.test(name));
    const layout = {
      height: 300, hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      colorway: ["@1", "@2", "@3", "@4", "@5", "@6"].map((name) => colors[name]),
      ...given,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colors["@text"], ...given.font },
      margin: { l: 48, r: 12, t: 12, b: 40, ...given.margin },
      legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top", ...given.legend },
      hoverlabel: { bgcolor: colors["@paper"], bordercolor: colors.line, font: { color: colors["@text"] } },
    };
    for (const name of new Set(["xaxis", "yaxis", ...axes])) layout[name] = axis(given[name], colors);
    return layout;
  }

  let charts = {};
  let library = null;

  function loadPlotly() {
    library = library || unpackText("data-plotly").then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
    });
    return library;
  }

  async function draw(plot) {
    const figure = charts[plot.dataset.chart];
    await loadPlotly();
    const colors = COLORS[dark.matches ? "dark" : "light"];
    const config = { displayModeBar: false, responsive: true };
    await window.Plotly.react(plot, colored(figure.data, colors), layoutOf(figure, colors), config);
    plot.dataset.drawn = dark.matches ? "dark" : "light";
  }

  async function startCharts() {
    const plots = [...document.querySelectorAll(".plot")];
    if (!plots.length) return;
    charts = await unpack("data-charts");
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !entry.target.dataset.drawn) {
          near.unobserve(entry.target);
          draw(entry.target);
        }
      }
    }, { rootMargin: "400px" });
    plots.forEach((plot) => near.observe(plot));
    dark.addEventListener("change", () => plots.filter((plot) => plot.dataset.drawn).forEach(draw));
    addEventListener("beforeprint", () => plots.filter((plot) => !plot.dataset.drawn).forEach(draw));
  }

  /* Views: the report, and the answers. The address says which question and which filters. */

  const report = byId("report");
  const section = byId("answers");

  function place() {
    const hash = location.hash.slice(1);
    return hash.startsWith("answers") ? new URLSearchParams(hash.slice("answers".length)) : null;
  }

  function showView() {
    const asked = section && place();
    if (section) section.hidden = !asked;
    report.hidden = Boolean(asked);
    for (const link of document.querySelectorAll("nav a")) {
      const isHere = asked ? link.hash === "#answers" : link.hash === location.hash;
      if (isHere) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
    if (asked) openAnswers(asked);
    else if (location.hash.length > 1) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }

  /* Answers. */

  const ROW = 58;
  const LOW = 0.5;
  const NAMES = {
    question_word: "Question word", answer_words: "Answer words", context_tokens: "Context tokens",
    num_windows: "Windows", source: "Source",
  };
  let data = null;
  let loading = null;
  let shown = []; // numbers of the questions that pass the filters, in their order
  let at = -1; // the question that is open
  let first = 0; // the run shown first, and the one beside it; -1: none
  let second = -1;
  let groupSelects = {};
  let lowered = null; // texts to search in
  let openWindow = -1;
  let openCandidate = null;

  const el = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") element.className = value; else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };

  /* Control characters as Unicode's pictures of them, one for one: places stay as they are. */
  const visible = (text) =>
    text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/\u007f/g, "\u2421");

  /* Places count characters as Python does, where JavaScript counts some twice. */
  function sliceOf(text) {
    if (!/[\ud800-\udfff]/.test(text)) return (start, end) => text.slice(start, end);
    const letters = Array.from(text);
    return (start, end) => letters.slice(start, end).join("");
  }

  function unpackPairs(packedPairs) {
    const { counts, starts, lengths } = packedPairs;
    const splits = new Uint32Array(counts.length + 1);
    counts.forEach((count, row) => { splits[row + 1] = splits[row] + count; });
    const of = (row) => {
      const pairs = [];
      for (let k = splits[row]; k < splits[row + 1]; k++) pairs.push([starts[k], starts[k] + lengths[k]]);
      return pairs;
    };
    return { counts, splits, of };
  }

  function prepare(found) {
    found.golds = unpackPairs(found.golds);
    for (const run of found.answers) {
      run.n_best = unpackPairs(run.n_best);
      run.windows = unpackPairs(run.windows);
    }
    return found;
  }

  function part(row) {
    const from = data.context_start[row];
    const slice = sliceOf(data.contexts[data.context[row]]);
    return (start, end) => slice(Math.max(0, start - from), Math.max(0, end - from));
  }

  const goldTexts = (row) => [...new Set(data.golds.of(row).map(([s, e]) => part(row)(s, e)))];
  const isAnswerable = (row) => data.golds.counts[row] > 0;

  function stateOf(run, row) {
    const answers = data.answers[run];
    if (answers.exact[row]) return "right";
    return answers.f1[row] > 0 ? "partly" : "wrong";
  }
  const SIGN = { right: "✓", partly: "≈", wrong: "✗" };
  const WORD = { right: "right", partly: "partly right", wrong: "wrong" };

  const isRight = (run, row) => data.answers[run].exact[row] === 1;
  const kinds = () => {
    const alone = [
      ["all", "all", () => true],
      ["wrong", "not right", (row) => !isRight(first, row)],
      ["right", "right", (row) => isRight(first, row)],
      ["partly", "partly right", (row) => stateOf(first, row) === "partly"],
      ["answered", "answered, should not be", (row) => !isAnswerable(row) && data.answers[first].answer[row] !== ""],
      ["unanswered", "not answered, should be", (row) => isAnswerable(row) && data.answers[first].answer[row] === ""],
      ["unsure", "low confidence (below 50 %)", (row) => (data.answers[first].probability[row] ?? 1) < LOW],
    ];
    if (second < 0) return alone;
    return [
      ...alone,
      ["won", "right in the first run alone", (row) => isRight(first, row) && !isRight(second, row)],
      ["lost", "right in the second run alone", (row) => !isRight(first, row) && isRight(second, row)],
      ["differ", "answers differ", (row) => data.answers[first].answer[row] !== data.answers[second].answer[row]],
    ];
  };

  const ORDERS = [
    ["id", "as sorted by id", null],
    ["unsure", "least confident first", (row) => data.answers[first].probability[row] ?? 2],
    ["sure", "most confident first", (row) => -(data.answers[first].probability[row] ?? -2)],
    ["f1", "lowest F1 first", (row) => data.answers[first].f1[row]],
    ["long", "longest context first", (row) => -data.context_length[row]],
  ];

  function fillSelect(select, options, value) {
    select.replaceChildren(...options.map(([key, text]) => el("option", { value: key }, visible(String(text)))));
    if (options.some(([key]) => String(key) === String(value))) select.value = value;
  }

  function startFilters() {
    const runs = data.runs.map((name, number) => [number, name]);
    byId("pick-a").hidden = byId("pick-b").hidden = runs.length < 2;
    second = runs.length > 1 ? 1 : -1;
    fillSelect(byId("run-a"), runs, first);
    fillSelect(byId("run-b"), [[-1, "none"], ...runs], second);
    fillSelect(byId("show"), kinds(), "all");
    fillSelect(byId("order"), ORDERS, "id");
    for (const [name, group] of Object.entries(data.groups)) {
      if (group.names.length < 2) continue;
      const select = el("select", { id: `group-${name}` });
      const names = group.names.map((text, number) => [number, text]).sort((a, b) => String(a[1]).localeCompare(b[1], "en", { numeric: true }));
      fillSelect(select, [["", "all"], ...names], "");
      byId("groups").append(el("label", {}, `${NAMES[name] || name} `, select));
      groupSelects[name] = select;
    }
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("change", (event) => {
      if (event.target.id === "run-a" || event.target.id === "run-b") pickRuns();
      if (event.target.id === "order") at = -1; // its first question is what one asked for
      if (event.target.id !== "search") filter();
    });
    let typing = 0;
    byId("search").addEventListener("input", () => {
      cancelAnimationFrame(typing);
      typing = requestAnimationFrame(filter);
    });
    byId("clear").addEventListener("click", () => { setFilters(new URLSearchParams()); filter(); });
  }

  function pickRuns() {
    first = Number(byId("run-a").value);
    second = Number(byId("run-b").value);
    if (second === first) { second = -1; byId("run-b").value = -1; }
    fillSelect(byId("show"), kinds(), byId("show").value);
  }

  function setFilters(asked) {
    byId("search").value = asked.get("search") || "";
    byId("show").value = kinds().some(([key]) => key === asked.get("show")) ? asked.get("show") : "all";
    byId("order").value = ORDERS.some(([key]) => key === asked.get("order")) ? asked.get("order") : "id";
    for (const [name, select] of Object.entries(groupSelects)) {
      const number = data.groups[name].names.indexOf(asked.get(name));
      select.value = number < 0 ? "" : number;
    }
  }

  function searchTexts() {
    if (lowered) return lowered;
    const low = (text) => text.toLowerCase();
    lowered = {
      contexts: data.contexts.map(low),
      texts: data.question.map((text, row) =>
        low([text, data.id[row], ...data.answers.map((run) => run.answer[row])].join("\n"))),
    };
    return lowered;
  }

  function filter() {
    const words = byId("search").value.trim().toLowerCase();
    const passes = kinds().find(([key]) => key === byId("show").value)[2];
    const groups = Object.entries(groupSelects).filter(([, select]) => select.value !== "")
      .map(([name, select]) => [data.groups[name].of, Number(select.value)]);
    let found = data.id.map((_, row) => row);
    found = found.filter((row) => passes(row) && groups.every(([of, number]) => of[row] === number));
    if (words) {
      const { contexts, texts } = searchTexts();
      const holds = contexts.map((text) => text.includes(words));
      found = found.filter((row) => holds[data.context[row]] || texts[row].includes(words));
    }
    const key = ORDERS.find(([name]) => name === byId("order").value)[2];
    if (key) found = found.map((row) => [key(row), row]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((pair) => pair[1]);
    shown = found;
    const right = shown.filter((row) => isRight(first, row)).length;
    const share = shown.length ? ` (${(100 * right / shown.length).toFixed(1)} % of them right)` : "";
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${data.id.length.toLocaleString("en")} questions${share}`;
    byId("rows").style.height = `${shown.length * ROW}px`;
    byId("list").scrollTop = 0;
    if (!shown.includes(at)) open(shown.length ? shown[0] : -1); else open(at);
    renderRows();
  }

  function renderRows() {
    const list = byId("list");
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
    const to = Math.min(shown.length, Math.ceil((list.scrollTop + (list.clientHeight || 600)) / ROW) + 8);
    const rows = [];
    for (let k = from; k < to; k++) rows.push(rowElement(k));
    byId("rows").replaceChildren(...rows);
    const selected = shown.indexOf(at);
    if (selected >= from && selected < to) list.setAttribute("aria-activedescendant", `row-${selected}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function rowElement(k) {
    const row = shown[k];
    const answers = data.answers[first];
    const state = stateOf(first, row);
    const states = second < 0 ? [state] : [state, stateOf(second, row)];
    const probability = answers.probability[row];
    const answer = answers.answer[row];
    const element = el("div", {
      class: "row", role: "option", id: `row-${k}`, "aria-selected": row === at ? "true" : "false",
      "aria-setsize": shown.length, "aria-posinset": k + 1,
    },
    el("span", { class: "signs", "aria-hidden": "true" },
      ...states.map((one) => el("span", { class: `state ${one}` }, SIGN[one]))),
    el("span", { class: "q", dir: "auto" }, visible(data.question[row].slice(0, 300))),
    el("span", { class: "a", dir: "auto" }, answer === "" ? "no answer" : visible(answer.slice(0, 200))),
    el("span", { class: "p" }, probability == null ? "" : `${Math.round(100 * probability)} %`),
    el("span", { class: "unseen" }, states.map((one) => WORD[one]).join(", ")));
    element.style.top = `${k * ROW}px`;
    element.addEventListener("click", () => open(row));
    return element;
  }

  function open(row) {
    const isNew = row !== at;
    at = row;
    if (isNew) { openWindow = -1; openCandidate = null; }
    renderDetail();
    const k = shown.indexOf(row);
    const list = byId("list");
    if (k >= 0 && (k * ROW < list.scrollTop || (k + 1) * ROW > list.scrollTop + list.clientHeight)) {
      list.scrollTop = Math.max(0, k * ROW - list.clientHeight / 2);
    }
    renderRows();
    writePlace();
  }

  function addressOf(row) {
    const wanted = new URLSearchParams();
    if (row >= 0) wanted.set("q", data.id[row]);
    return wanted;
  }

  function writePlace() {
    const wanted = addressOf(at);
    byId("link").setAttribute("href", `#answers&${wanted}`);
    if (byId("search").value) wanted.set("search", byId("search").value);
    for (const id of ["show", "order"]) if (byId(id).selectedIndex > 0) wanted.set(id, byId(id).value);
    for (const [name, select] of Object.entries(groupSelects)) {
      if (select.value !== "") wanted.set(name, data.groups[name].names[Number(select.value)]);
    }
    history.replaceState(null, "", `#answers&${wanted}`);
  }

  function move(step, passes = () => true) {
    let k = shown.indexOf(at) + step;
    while (k >= 0 && k < shown.length && !passes(shown[k])) k += step;
    if (k >= 0 && k < shown.length) open(shown[k]);
  }
  const moveWrong = () => move(1, (row) => !isRight(first, row));

  /* The context in pieces that each have the same marks. */
  function marked(row) {
    const text = data.contexts[data.context[row]];
    const slice = sliceOf(text);
    const from = data.context_start[row];
    const size = /[\ud800-\udfff]/.test(text) ? Array.from(text).length : text.length;
    const ranges = [];
    const add = (kind, start, end) => {
      const [a, b] = [Math.max(0, start - from), Math.min(size, end - from)];
      if (start >= 0 && a < b) ranges.push([kind, a, b]);
    };
    data.golds.of(row).forEach(([s, e]) => add("gold", s, e));
    add("first", data.answers[first].start[row], data.answers[first].end[row]);
    if (second >= 0) add("second", data.answers[second].start[row], data.answers[second].end[row]);
    if (openCandidate) add("candidate", ...openCandidate);
    const window = openWindow >= 0 ? data.answers[first].windows.of(row)[openWindow] : null;
    const cuts = new Set([0, size]);
    for (const [, a, b] of ranges) cuts.add(a).add(b);
    if (window) for (const edge of window) cuts.add(Math.min(size, Math.max(0, edge - from)));
    const edges = [...cuts].sort((a, b) => a - b);
    const pieces = [];
    for (let k = 0; k + 1 < edges.length; k++) {
      const [a, b] = [edges[k], edges[k + 1]];
      const here = ranges.filter(([, s, e]) => s <= a && b <= e).map(([kind]) => kind);
      const isOutside = window && (b + from <= window[0] || a + from >= window[1]);
      let piece = document.createTextNode(visible(slice(a, b)));
      if (here.length) {
        const names = [...new Set(here)];
        const spoken = names.map((kind) => ({
          gold: "accepted answer", first: "answer given", second: "answer of the second run", candidate: "candidate",
        })[kind]).join(" and ");
        piece = el("mark", { class: names.join(" ") }, el("span", { class: "unseen" }, `[${spoken}: `), piece, el("span", { class: "unseen" }, "]"));
      }
      if (isOutside) piece = el("span", { class: "outside" }, piece);
      pieces.push(piece);
    }
    const block = el("div", { class: "context", dir: "auto", id: "context" });
    if (from > 0) block.append(`… (${from.toLocaleString("en")} characters before)\n`);
    block.append(...pieces);
    const after = data.context_length[row] - from - size;
    if (after > 0) block.append(`\n… (${after.toLocaleString("en")} characters after)`);
    return block;
  }

  function verdict(run, row) {
    const answers = data.answers[run];
    const state = stateOf(run, row);
    const text = answers.answer[row] === "" ? "no answer" : visible(answers.answer[row]);
    const probability = answers.probability[row];
    const more = [`F1 ${(100 * answers.f1[row]).toFixed(1)}`];
    if (probability != null) more.push(`probability ${(100 * probability).toFixed(1)} %`);
    if (answers.null_odds[row] != null) more.push(`null odds ${answers.null_odds[row].toFixed(2)}`);
    return el("dd", { dir: "auto" },
      el("bdi", { class: run === first ? "given" : "given second" }, text),
      el("span", {}, " — ", el("span", { class: `state ${state}` }, `${SIGN[state]} ${WORD[state]}`), `, ${more.join(", ")}`));
  }

  function renderDetail() {
    const box = byId("question");
    if (at < 0) { box.replaceChildren(el("p", {}, "No question passes these filters.")); return; }
    const row = at;
    const golds = goldTexts(row);
    const label = (run, words) => data.runs.length > 1 ? data.runs[run] : words;
    const verdicts = el("dl", { class: "verdicts" },
      el("dt", {}, label(first, "Answer given")), verdict(first, row),
      ...(second >= 0 ? [el("dt", {}, label(second, "")), verdict(second, row)] : []),
      el("dt", {}, golds.length > 1 ? "Accepted answers" : "Accepted answer"),
      el("dd", { dir: "auto" }, ...(golds.length
        ? golds.flatMap((text, k) => [...(k ? [el("span", {}, " · ")] : []), el("bdi", {}, visible(text))])
        : ["none: the context does not say"])));
    const facts = el("ul", { class: "facts" }, el("li", {}, el("bdi", {}, `id ${visible(data.id[row])}`)),
      ...Object.entries(data.groups).map(([name, group]) =>
        el("li", {}, `${(NAMES[name] || name).toLowerCase()}: `, el("bdi", {}, visible(String(group.names[group.of[row]] ?? "–"))))));
    const legend = el("p", { class: "legend" },
      el("span", {}, el("mark", { class: "gold" }, "accepted answer")),
      el("span", {}, el("mark", { class: "first" }, label(first, "answer given"))),
      ...(second >= 0 ? [el("span", {}, el("mark", { class: "second" }, label(second, "")))] : []));
    box.replaceChildren(
      el("h3", { dir: "auto" }, visible(data.question[row])),
      facts, verdicts, legend, marked(row), windowBar(row), candidates(row));
  }

  function windowBar(row) {
    const windows = data.answers[first].windows.of(row);
    if (!windows.length) return "";
    const bar = el("div", { class: "windows", role: "group", "aria-label": "Windows" }, `${windows.length === 1 ? "1 window" : `${windows.length} windows`}: `);
    windows.slice(0, 40).forEach(([start, end], k) => {
      const button = el("button", { type: "button", "aria-pressed": String(k === openWindow) }, `${k + 1}: characters ${start.toLocaleString("en")} to ${end.toLocaleString("en")}`);
      button.addEventListener("click", () => {
        openWindow = openWindow === k ? -1 : k;
        redraw(() => bar.parentElement && byId("question").querySelectorAll(".windows button")[k]);
      });
      bar.append(button);
    });
    if (windows.length > 40) bar.append(`and ${windows.length - 40} more`);
    return bar;
  }

  function redraw(focused) {
    renderDetail();
    focused()?.focus();
  }

  function candidates(row) {
    const answers = data.answers[first];
    const places = answers.n_best.of(row);
    if (!places.length) return "";
    const slice = part(row);
    const base = answers.n_best.splits[row];
    const golds = new Set(goldTexts(row));
    const body = places.map(([start, end], k) => {
      const text = start < 0 ? "" : slice(start, end);
      const probability = answers.n_best_probability[base + k];
      const name = start < 0 ? "no answer" : visible(text) || "(not in the part that is shown)";
      const button = el("button", { type: "button", title: "Show it in the context" }, el("bdi", {}, name.slice(0, 400)));
      button.addEventListener("click", () => {
        openCandidate = start < 0 ? null : [start, end];
        redraw(() => byId("question").querySelectorAll(".candidates button")[k]);
        byId("question").querySelector("mark.candidate")?.scrollIntoView({ block: "nearest" });
      });
      const isGold = start < 0 ? !golds.size : golds.has(text);
      return el("tr", {},
        el("td", { dir: "auto" }, button),
        el("td", { class: "number" }, `${(100 * probability).toFixed(1)} %`),
        el("td", {}, el("meter", { min: 0, max: 1, value: probability, "aria-label": `probability ${(100 * probability).toFixed(1)} %` })),
        el("td", {}, isGold ? el("span", { class: "state right" }, "✓ accepted") : ""));
    });
    const head = el("tr", {}, ...["candidate", "probability", "", ""].map((name, k) => name || k === 0 ? el("th", { scope: "col" }, name) : el("td")));
    return el("div", {}, el("h4", {}, "Best candidates"), el("table", { class: "candidates" }, el("thead", {}, head), el("tbody", {}, ...body)));
  }

  function keys(event) {
    if (section.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") byId("list").focus();
      return;
    }
    const inList = event.target === byId("list");
    const moves = { j: () => move(1), k: () => move(-1), w: moveWrong, "/": () => byId("search").focus() };
    const inside = {
      ArrowDown: () => move(1), ArrowUp: () => move(-1), Home: () => open(shown[0]),
      End: () => open(shown[shown.length - 1]), PageDown: () => move(Math.min(8, shown.length - 1 - shown.indexOf(at))),
      PageUp: () => move(-Math.min(8, shown.indexOf(at))), Enter: () => byId("detail").focus(),
    };
    const act = moves[event.key] || (inList && shown.length && inside[event.key]);
    if (act) { event.preventDefault(); act(); }
  }

  function openAnswers(asked) {
    loading = loading || unpack("data-answers").then((found) => {
      data = prepare(found);
      startFilters();
      byId("list").addEventListener("scroll", () => requestAnimationFrame(renderRows));
      byId("previous").addEventListener("click", () => move(-1));
      byId("next").addEventListener("click", () => move(1));
      byId("next-wrong").addEventListener("click", moveWrong);
      addEventListener("keydown", keys);
      addEventListener("resize", renderRows);
    });
    return loading.then(() => {
      setFilters(asked);
      const row = data.id.indexOf(asked.get("q"));
      at = row;
      filter();
      if (row >= 0 && at !== row) { setFilters(new URLSearchParams()); at = row; filter(); }
      section.dataset.ready = "true";
    });
  }

  addEventListener("hashchange", showView);
  showView();
  startCharts();
})();
