"use strict";
// Sort, filter and show the pictures of a run. All text is inserted as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const PAGE = 24;
  const shownMethods = new Set(data.methods.filter((name) => !name.startsWith("ceiling")));
  let order = [];
  let shown = 0;
  let openAt = -1;

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const option = (select, value, text) => {
    const element = make("option", text);
    element.value = value;
    select.append(element);
  };
  const number = (value) => value.toFixed(3).replace("-", "−");
  const metricAt = () => ($("order").value.startsWith("m") ? Number($("order").value.slice(1)) : -1);

  // A small generator with a seed, so that a random order is reproducible.
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
  function shuffled(items, seed) {
    const next = generator(seed);
    const result = items.slice();
    for (let i = result.length - 1; i > 0; i -= 1) {
      const j = Math.floor(next() * (i + 1));
      [result[i], result[j]] = [result[j], result[i]];
    }
    return result;
  }
  const scoreOf = (item, method, metric) => {
    const row = item.scores[method];
    return row && row[metric] !== null && row[metric] !== undefined ? row[metric] : NaN;
  };
  // The number under a picture: its own pixel correlation, or the score by which images are sorted.
  const shownScore = (item, method, sample) => {
    if (metricAt() >= 0) return scoreOf(item, method, metricAt());
    const own = (item.correlations[method] || [])[sample];
    return own === null || own === undefined ? NaN : own;
  };
  const shownName = () => metricAt() < 0
    ? "pixel correlation with the stimulus (1 for equal pictures)"
    : `“${data.metrics[metricAt()].name}”${data.metrics[metricAt()].lower ? " (lower is better)" : ""}, the mean over samples where a method has several`;
  const value = (item) => {
    const own = scoreOf(item, $("of").value, metricAt());
    return $("less").value === "" ? own : own - scoreOf(item, $("less").value, metricAt());
  };

  function arrange() {
    const category = $("category").value;
    let items = data.items.filter((item) => category === "" || "c" + item.category === category);
    const metric = metricAt();
    const ranked = metric >= 0;
    for (const id of ["of-label", "less-label", "way-label"]) $(id).hidden = !ranked;
    $("seed-label").hidden = $("order").value !== "random";
    let missing = 0;
    if ($("order").value === "random") {
      items = shuffled(items, Number($("seed").value));
    } else if (ranked) {
      const worse = data.metrics[metric].lower ? -1 : 1;
      const sign = $("way").value === "poor" ? worse : -worse;
      const known = items.filter((item) => !Number.isNaN(value(item)));
      missing = items.length - known.length;
      items = known.sort((a, b) => sign * (value(a) - value(b)) || (a.id < b.id ? -1 : 1));
    }
    order = items;
    const how = $("order").value === "random" ? `in random order (seed ${$("seed").value})`
      : $("order").value === "id" ? "sorted by id"
        : `${$("way").selectedOptions[0].textContent} by “${data.metrics[metric].name}” of ${$("of").value}${$("less").value ? " minus " + $("less").value : ""}${data.metrics[metric].lower ? " (lower is better)" : ""}`;
    $("said").textContent = `${order.length} of ${data.items.length} images, ${how}.${missing ? ` ${missing} images without this score are not shown.` : ""} Number under each picture: ${shownName()}.`;
    $("grid").replaceChildren();
    shown = 0;
    showMore();
  }

  function figure(item, method, source, sample, many) {
    const box = make("figure", undefined, method === "seen" ? "seen" : "");
    if (source) {
      const image = make("img");
      image.loading = "lazy";
      image.alt = method === "seen" ? `Stimulus ${item.id}` : `Reconstruction of ${item.id} by ${method}${many ? `, sample ${sample + 1}` : ""}`;
      image.src = source;
      box.append(image);
    } else box.append(make("div", "none", "none"));
    const caption = make("figcaption");
    caption.append(make("b", method === "seen" ? "stimulus" : method));
    if (many) caption.append(`, sample ${sample + 1}`);
    if (method !== "seen" && source && !Number.isNaN(shownScore(item, method, sample))) {
      caption.append(" " + number(shownScore(item, method, sample)));
    }
    box.append(caption);
    return box;
  }
  function figures(item, whole) {
    const row = make("div", undefined, "row");
    row.append(figure(item, "seen", item.pictures.seen[0], 0, false));
    for (const method of data.methods) {
      if (!shownMethods.has(method)) continue;
      const sources = item.pictures[method] || [];
      const chosen = whole ? sources : sources.slice(0, 1);
      if (!chosen.length) row.append(figure(item, method, null, 0, false));
      chosen.forEach((source, sample) => row.append(figure(item, method, source, sample, whole && sources.length > 1)));
    }
    return row;
  }
  const named = (element, item) => {
    element.textContent = item.id;
    if (item.category !== null) element.append(" ", make("span", item.category));
  };

  function showMore() {
    for (const end = Math.min(order.length, shown + PAGE); shown < end; shown += 1) {
      const place = shown;
      const item = order[place];
      const card = make("article");
      card.tabIndex = 0;
      card.setAttribute("aria-label", `Image ${place + 1} of ${order.length}: ${item.id}`);
      const title = make("h2");
      named(title, item);
      card.append(title);
      if (data.simulated) card.append(make("span", "SIMULATED", "corner"));
      card.append(figures(item, false));
      card.addEventListener("click", () => open(place));
      $("grid").append(card);
    }
    $("more").hidden = shown >= order.length;
  }

  function scoreTable(item) {
    const table = make("table");
    const head = make("tr");
    head.append(make("th", "score"));
    const methods = data.methods.filter((name) => shownMethods.has(name) && item.scores[name]);
    for (const method of methods) head.append(make("th", method));
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    data.metrics.forEach((metric, place) => {
      const values = methods.map((method) => scoreOf(item, method, place));
      const finite = values.filter((v) => !Number.isNaN(v));
      if (!finite.length) return;
      const best = metric.lower ? Math.min(...finite) : Math.max(...finite);
      const line = make("tr");
      line.append(make("th", metric.name + (metric.lower ? " (lower is better)" : "")));
      for (const v of values) line.append(make("td", Number.isNaN(v) ? "–" : number(v), v === best ? "best" : ""));
      body.append(line);
    });
    table.append(top, body);
    return table;
  }
  function open(place) {
    if (place < 0 || place >= order.length) return;
    openAt = place;
    const item = order[place];
    named($("whole-title"), item);
    if (data.simulated) $("whole-title").append(" ", make("b", "SIMULATED", "mark"));
    $("before").disabled = place === 0;
    $("after").disabled = place === order.length - 1;
    const scroll = make("div", undefined, "scroll");
    scroll.append(scoreTable(item));
    $("whole-body").replaceChildren(figures(item, true), scroll);
    if (!$("whole").open) $("whole").showModal();
    $("whole").scrollTop = 0;
  }
  function focusCard(place) {
    while (place >= shown && shown < order.length) showMore();
    const card = $("grid").children[Math.max(0, Math.min(order.length - 1, place))];
    if (card) card.focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if ($("whole").open) {
      if (event.key === "ArrowLeft") open(openAt - 1);
      else if (event.key === "ArrowRight") open(openAt + 1);
      else return;
      event.preventDefault();
      return;
    }
    if (/^(INPUT|SELECT|BUTTON)$/.test(document.activeElement.tagName)) return;
    const at = Array.from($("grid").children).indexOf(document.activeElement);
    if (event.key === "ArrowDown" || event.key === "j") focusCard(at + 1);
    else if (event.key === "ArrowUp" || event.key === "k") focusCard(Math.max(0, at - 1));
    else if (event.key === "Enter" && at >= 0) open(at);
    else if (event.key === "r") {
      $("order").value = "random";
      $("seed").value = String((Number($("seed").value) + 1) % 4294967296);
      arrange();
      focusCard(0);
    } else return;
    event.preventDefault();
  });
  $("whole").addEventListener("close", () => focusCard(openAt));
  $("close").addEventListener("click", () => $("whole").close());
  $("before").addEventListener("click", () => open(openAt - 1));
  $("after").addEventListener("click", () => open(openAt + 1));
  $("more").addEventListener("click", () => { const first = shown; showMore(); focusCard(first); });

  option($("order"), "random", "random order");
  option($("order"), "id", "id");
  const scored = data.methods.filter((name) => data.items.some((item) => item.scores[name]));
  if (scored.length) data.metrics.forEach((metric, place) => option($("order"), "m" + place, metric.name));
  option($("less"), "", "nothing");
  for (const method of scored) { option($("of"), method, method); option($("less"), method, method); }
  if (scored.includes("z_c")) $("of").value = "z_c";
  const categories = [...new Set(data.items.map((item) => item.category))].filter((name) => name !== null).sort();
  option($("category"), "", "all");
  for (const name of categories) option($("category"), "c" + name, name);
  $("category-label").hidden = categories.length < 2;
  $("seed").value = String(data.seed);
  if (innerWidth < 640) {
    $("size").value = "104"; // three pictures in a row on a phone
    document.documentElement.style.setProperty("--side", "104px");
  }
  for (const method of data.methods) {
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = shownMethods.has(method);
    box.addEventListener("change", () => {
      if (box.checked) shownMethods.add(method); else shownMethods.delete(method);
      arrange();
    });
    label.append(box, method);
    $("methods").append(label);
  }
  for (const id of ["order", "of", "less", "way", "category", "seed"]) $(id).addEventListener("change", arrange);
  $("size").addEventListener("input", () => document.documentElement.style.setProperty("--side", $("size").value + "px"));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  arrange();
})();
