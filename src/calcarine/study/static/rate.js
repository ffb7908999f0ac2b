"use strict";
// The page of a rater. The server stores the progress; this script shows trials and sends answers.
(() => {
  const base = location.pathname.replace(/\/+$/, "");
  const restEvery = Number(document.body.dataset.restEvery);
  const $ = (id) => document.getElementById(id);
  const screens = ["intro", "rate", "rest", "done"];
  const pictures = new Map();
  let current = null; // the trial on the screen
  let shownAt = 0;
  let pausedAt = null;
  let pausedMs = 0;
  let open = false; // whether a choice counts now
  let pauseAsked = false; // pause requested before the pictures were loaded
  let following = null; // next state, shown after feedback or a rest
  let lastPointer = "mouse";
  let sinceRest = 0;

  const show = (name) => {
    for (const screen of screens) $(screen).hidden = screen !== name;
    const title = $(name).querySelector("[tabindex='-1']");
    if (title) title.focus({ preventScroll: true });
  };
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  // Answers can be sent again safely, because the server keeps the first one of each trial.
  async function request(path, options) {
    for (let pause = 500; ; pause = Math.min(8000, pause * 2)) {
      try {
        const reply = await fetch(base + path, { cache: "no-store", ...options });
        if (reply.status < 500 && reply.status !== 429) {
          $("offline").hidden = true;
          return reply;
        }
      } catch { /* no connection: try again */ }
      $("offline").hidden = false;
      await wait(pause);
    }
  }
  const post = (path, body) => request(path, {
    method: "POST",
    keepalive: true, // sent even if the tab is closed immediately
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

  function picture(token) {
    if (!pictures.has(token)) {
      pictures.set(token, request("/images/" + token).then(async (reply) => {
        if (!reply.ok) throw new Error("picture");
        return URL.createObjectURL(await reply.blob());
      }));
      pictures.get(token).catch(() => pictures.delete(token));
    }
    return pictures.get(token);
  }
  function forget(keep) {
    for (const [token, url] of pictures) {
      if (keep.includes(token)) continue;
      url.then(URL.revokeObjectURL, () => {});
      pictures.delete(token);
    }
  }

  async function load() {
    const reply = await request("/state");
    if (!reply.ok) { location.reload(); return; }
    await enter(await reply.json());
  }

  async function enter(state) {
    open = false;
    current = null;
    if (state.phase === "consent") { show("intro"); return; }
    if (state.phase === "done") { show("done"); return; }
    current = state;
    pausedMs = 0;
    pausedAt = null;
    $("feedback").hidden = true;
    $("left").classList.remove("chosen");
    $("right").classList.remove("chosen");
    $("part").textContent = state.practice ? "Practice" : "Question";
    $("count").textContent = `${state.done + 1} of ${state.total}`;
    $("bar").max = state.total;
    $("bar").value = state.done;
    $("pictures").classList.add("loading");
    show("rate");
    const sides = ["original", "left", "right"];
    const images = [$("original"), $("left").firstElementChild, $("right").firstElementChild];
    try {
      const urls = await Promise.all(sides.map((side) => picture(state.images[side])));
      images.forEach((image, place) => { image.src = urls[place]; });
      await Promise.all(images.map((image) => image.decode()));
    } catch {
      await wait(1000);
      return load();
    }
    if (current !== state) return;
    $("pictures").classList.remove("loading");
    $("live").textContent = `${$("part").textContent} ${$("count").textContent}.`;
    // The response time starts when the pictures are on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      shownAt = performance.now();
      open = true;
      if (document.hidden || pauseAsked) pause();
    }));
    forget([...Object.values(state.images), ...state.ahead]);
    for (const token of state.ahead) picture(token).catch(() => {});
  }

  async function choose(side, input) {
    if (!open || pausedAt !== null || !current) return;
    open = false;
    const trial = current;
    const spent = performance.now() - shownAt - pausedMs;
    $(side).classList.add("chosen");
    const reply = await post("/answers", {
      trial: trial.trial,
      choice: side,
      client_ms: Math.max(0, spent),
      paused_ms: Math.max(0, pausedMs),
      input,
    });
    if (!reply.ok) return load(); // answered in another tab: show the current trial
    const said = await reply.json();
    if (said.feedback !== null) return feedback(said);
    sinceRest += 1;
    if (sinceRest >= restEvery && said.state.phase === "trial") {
      following = said.state;
      return rest("Time for a short rest", `You have answered ${said.state.done} of ${said.state.total} questions. Rest your eyes for a moment, and continue when you are ready.`);
    }
    return enter(said.state);
  }

  function feedback(said) {
    following = said.state;
    const last = said.state.phase === "trial" && !said.state.practice;
    const verdict = said.feedback === "right"
      ? "Correct: the picture that you chose is more similar to the original."
      : "Not correct: the other picture is more similar to the original.";
    $("verdict").textContent = last ? verdict + " The practice is over. From now on there is no feedback." : verdict;
    $("next").textContent = last ? "Start" : "Next";
    $("feedback").hidden = false;
    $("next").focus();
  }
  function goOn() {
    const state = following;
    following = null;
    if (state) enter(state);
  }

  function rest(title, text) {
    sinceRest = 0;
    pauseAsked = false;
    $("rest-title").textContent = title;
    $("rest-text").textContent = text;
    show("rest");
    $("resume").focus();
  }
  function pause() {
    if (pausedAt !== null) return;
    pauseAsked = !open;
    if (!open) return;
    pausedAt = performance.now();
    rest("Paused", "The pictures are hidden and the time is stopped. You can also close the page and continue later with the same link.");
  }
  function resume() {
    if (pausedAt === null) return goOn();
    show("rate");
    pausedMs += performance.now() - pausedAt;
    pausedAt = null;
  }

  const shownScreen = () => screens.find((name) => !$(name).hidden);
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const onButton = document.activeElement && document.activeElement.tagName === "BUTTON";
    if (shownScreen() === "rate" && !$("feedback").hidden) {
      if ((key === " " || key === "enter") && document.activeElement !== $("next")) {
        event.preventDefault();
        goOn();
      }
      return;
    }
    if (shownScreen() === "rate") {
      if (key === "arrowleft" || key === "f") { event.preventDefault(); choose("left", "key"); }
      else if (key === "arrowright" || key === "j") { event.preventDefault(); choose("right", "key"); }
      else if (key === "p" || (key === " " && !onButton)) { event.preventDefault(); pause(); }
    } else if (shownScreen() === "rest" && (key === "p" || (key === " " && !onButton))) {
      event.preventDefault();
      resume();
    }
  });
  for (const side of ["left", "right"]) {
    $(side).addEventListener("pointerdown", (event) => {
      lastPointer = event.pointerType === "mouse" ? "mouse" : "touch";
    });
    // A click without a pointer comes from Enter or Space on the focused picture.
    $(side).addEventListener("click", (event) => choose(side, event.detail === 0 ? "key" : lastPointer));
  }
  $("agree").addEventListener("change", () => { $("begin").disabled = !$("agree").checked; });
  $("begin").addEventListener("click", async () => {
    $("begin").disabled = true;
    const reply = await post("/consent", {});
    if (reply.ok) enter(await reply.json()); else location.reload();
  });
  $("next").addEventListener("click", goOn);
  $("pause").addEventListener("click", pause);
  $("resume").addEventListener("click", resume);
  document.addEventListener("visibilitychange", () => { if (document.hidden && open) pause(); });
  load();
})();
