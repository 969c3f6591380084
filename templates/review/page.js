"use strict";
// The review page. Ads, policy, names and comments reach the document through textContent alone, and
// what is stored or downloaded through JSON alone, so that nothing in them is ever markup or code.
(() => {
  const FORMAT = "ad-scout review page verdicts";
  const FORMAT_VERSION = 1;
  const SIDES = ["left", "right"];
  const NAMES = { left: "Ad A", right: "Ad B" };
  const KEYS = { 1: ["left", "positive"], 2: ["left", "negative"], 3: ["right", "positive"],
    4: ["right", "negative"], 5: ["left", "unsure"], 6: ["right", "unsure"] };
  const ANSWERS = ["positive", "negative", "unsure"];
  const MAX_UNDO = 100;
  // As in the importer, which refuses longer names and cuts longer comments.
  const MAX_NAME = 100;
  const MAX_COMMENT = 10000;

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const pairs = data.pairs;
  const words = { positive: data.labels.positive, negative: data.labels.negative,
    unsure: data.unsure, skip: "skipped" };

  let expert = "";
  let state = null;      // what is saved: see fresh()
  let settings = { shortcuts: true, advance: false };
  let saveTimer = 0;
  let stored = true;     // whether this browser keeps what it is given

  // --- text that cannot do anything ------------------------------------------------------------

  const MARK_NAMES = { 0xad: "SHY", 0x34f: "CGJ", 0x61c: "ALM", 0x85: "NEL", 0x180e: "MVS",
    0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM", 0x2028: "LS",
    0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO",
    0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
    0x7f: "DEL" };
  const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN " +
    "ETB CAN EM SUB ESC FS GS RS US").split(" ");
  // Scripts that are written with joiners: one after such a letter is spelling, not hiding.
  const JOINED = "Arab Syrc Mand Nkoo Mong Deva Beng Guru Gujr Orya Taml Telu Knda Mlym Sinh Khmr Mymr"
    .split(" ").map((script) => `\\p{scx=${script}}`).join("");
  const PICTURE = "\\p{Extended_Pictographic}(?:\\p{Emoji_Modifier}|[\\uFE0E\\uFE0F])?";
  const TAGGED = "\\u{1F3F4}\\u{E0067}\\u{E0062}(?:\\u{E0065}\\u{E006E}\\u{E0067}|" +
    "\\u{E0073}\\u{E0063}\\u{E0074}|\\u{E0077}\\u{E006C}\\u{E0073})\\u{E007F}";
  const HIDDEN = "[\\p{Default_Ignorable_Code_Point}\\p{Cs}\\u0000-\\u0008\\u000B-\\u001F\\u007F-\\u009F" +
    "\\u2028\\u2029\\u2800\\uFFF9-\\uFFFB\\u{13430}-\\u{1343F}]";
  const STACKED = "(?:(?!\\p{Default_Ignorable_Code_Point})[\\p{Mn}\\p{Me}])";
  const SPECIAL = new RegExp(
    `(?<kept>${TAGGED}|${PICTURE}(?:\\u200D${PICTURE})*|[0-9#*]\\uFE0F\\u20E3|` +
    `(?!\\p{Default_Ignorable_Code_Point})[${JOINED}][\\u200C\\u200D](?![\\u200C\\u200D]))|(?<line>\\r\\n)|` +
    // More marks on one letter than any script needs climb over the lines around it.
    `(?<stack>${STACKED}{7,})|` +
    // Marks behind something hidden would sit on its box.
    `(?<run>(?<one>${HIDDEN})\\k<one>*)(?<after>${STACKED}*)`, "gu");
  const STACK_SHOWN = 6;

  function markName(code) {
    if (code in MARK_NAMES) return MARK_NAMES[code];
    if (code < 0x20) return CONTROLS[code];
    if (code >= 0xfe00 && code <= 0xfe0f) return `VS${code - 0xfe00 + 1}`;
    if (code >= 0xe0020 && code <= 0xe007e) return `TAG ${String.fromCharCode(code - 0xe0000)}`;
    return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  }

  function make(tag, text = "", className = "") {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function markOf(text, spoken) {
    const mark = make("span", text, "mark");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", spoken);
    return mark;
  }

  function markOfMarks(number) {
    return markOf(`+${count(number, "mark")}`, `${count(number, "more combining mark")}`);
  }

  // Shows a text as it is, with a small labelled box for whatever would be invisible, turn the
  // text around, or pile up. The text itself, in data, stays untouched.
  function showText(element, text) {
    const parts = [];
    let plain = "";
    const flush = () => { if (plain) parts.push(document.createTextNode(plain)); plain = ""; };
    let end = 0;
    for (const match of text.matchAll(SPECIAL)) {
      plain += text.slice(end, match.index);
      end = match.index + match[0].length;
      const { kept, line, stack, run, one, after } = match.groups;
      if (kept) plain += kept;
      else if (line) plain += "\n";
      else if (stack) {
        const marks = [...stack];
        plain += marks.slice(0, STACK_SHOWN).join("");
        flush();
        parts.push(markOfMarks(marks.length - STACK_SHOWN));
      } else {
        flush();
        const name = markName(one.codePointAt(0));
        const times = run.length / one.length;
        parts.push(times > 1
          ? markOf(`${name} \u00d7${times}`, `${times} invisible characters ${name}`)
          : markOf(name, `invisible character ${name}`));
        if (after) parts.push(markOfMarks([...after].length));
        if (one === "\u2028" || one === "\u2029" || one === "\r" || one === "\u0085") plain += "\n";
      }
    }
    plain += text.slice(end);
    flush();
    if (!parts.length) parts.push(markOf("no text", "no text"));
    element.replaceChildren(...parts);
  }

  // --- what is kept in the browser ---------------------------------------------------------------

  const PREFIX = "ad-scout review";
  const keyOf = (name) => `${PREFIX} ${data.batch} ${folded(name)}`;

  // One person is one string, as the importer has it: Ann and "ann " go on with the same answers.
  function folded(name) {
    const wide = name.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC");
    return wide.replace(/\s+/gu, " ").replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, "").replace(/ +/g, " ").trim();
  }

  // What the browser refuses to keep lives here, as long as the page does.
  const refused = new Map();

  function keep(key, value) {
    try {
      localStorage.setItem(key, value);
      refused.delete(key);
      return true;
    } catch {
      refused.set(key, value);
      return false;
    }
  }

  function kept(key) {
    try {
      return refused.get(key) ?? localStorage.getItem(key);
    } catch {
      return null;
    }
  }

  function inThisTab(value) {
    // Remembers over a reload who works in this tab; a new tab asks again, with the name filled in.
    try {
      const key = `${PREFIX} ${data.batch}`;
      if (value !== undefined) sessionStorage.setItem(key, value);
      return sessionStorage.getItem(key) || "";
    } catch {
      return "";
    }
  }

  function fresh() {
    return { format: 1, place: 0, downloaded: true, undo: [],
      answers: pairs.map(() => ({ left: "", right: "", leftTime: "", rightTime: "", comment: "" })) };
  }

  const isText = (value, limit) => typeof value === "string" && value.length <= limit;
  const isAnswer = (value) => value === "" || value === "skip" || ANSWERS.includes(value);
  const isPlace = (value, end) => Number.isInteger(value) && value >= 0 && value < end;
  const isMove = (move) => move !== null && typeof move === "object" && isPlace(move.pair, pairs.length) &&
    SIDES.every((side) => isAnswer(move[side]) && isText(move[`${side}Time`], 40));

  // Returns what a stored text holds, or null for anything that this page did not write.
  function parsed(text) {
    try {
      const found = JSON.parse(text);
      const whole = found.format === 1 && isPlace(found.place, pairs.length + 1) &&
        typeof found.downloaded === "boolean" && Array.isArray(found.undo) && found.undo.every(isMove) &&
        Array.isArray(found.answers) && found.answers.length === pairs.length &&
        found.answers.every((answer, pair) => isMove({ ...answer, pair }) && isText(answer.comment, MAX_COMMENT));
      return whole ? found : null;
    } catch {
      return null;
    }
  }

  function save() {
    clearTimeout(saveTimer);
    saveTimer = 0;
    const before = stored;
    stored = keep(keyOf(expert), JSON.stringify(state));
    if (stored !== before || !stored) warnOfStorage();
  }

  function warnOfStorage() {
    byId("warning").hidden = stored;
    if (!stored) {
      byId("warning").textContent = "This browser does not keep your answers: they are lost when you close " +
        "or reload this page. Download your verdicts before you leave.";
    }
  }

  // --- what is where -----------------------------------------------------------------------------

  const isDone = (answer) => answer.left !== "" && answer.right !== "";
  const isStarted = (answer) => answer.left !== "" || answer.right !== "";
  const numberDone = () => state.answers.filter(isDone).length;
  const openPairs = () => pairs.map((_, i) => i).filter((i) => !isDone(state.answers[i]));
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const say = (text) => { byId("status").textContent = text; };

  function stateOf(answer) {
    if (answer.left === "skip" && answer.right === "skip") return "skipped";
    if (isDone(answer)) return "done";
    return isStarted(answer) ? "half done" : "open";
  }

  function render() {
    const working = state !== null;
    const finished = working && state.place === pairs.length;
    byId("start").hidden = working;
    byId("work").hidden = !working || finished;
    byId("finish").hidden = !finished;
    for (const id of ["bar", "foot", "all", "keys"]) byId(id).hidden = !working;
    if (!working) {
      measure();
      return;
    }
    byId("expert").textContent = expert;
    byId("progress").max = pairs.length;
    byId("progress").value = numberDone();
    byId("progress-text").textContent = `${numberDone()} of ${count(pairs.length, "pair")} done`;
    disable("previous", state.place === 0);
    disable("undo", state.undo.length === 0);
    disable("skip", finished);
    disable("next", finished);
    if (finished) renderFinish();
    else renderPair();
    if (byId("all").open) renderAll();
  }

  // Not the attribute disabled: it would throw the keyboard's focus away.
  function disable(id, off) {
    byId(id).setAttribute("aria-disabled", String(off));
  }

  let shownPair = -1;

  function renderPair() {
    const pair = pairs[state.place];
    const answer = state.answers[state.place];
    byId("pair-title").textContent = `Pair ${state.place + 1} of ${pairs.length}`;
    byId("pair-state").textContent = stateOf(answer);
    if (shownPair !== state.place) {
      shownPair = state.place;
      for (const side of SIDES) {
        const box = byId(`text-${side}`);
        showText(box, pair[side].text);
        box.scrollTop = 0;
        const model = pair[side].model;
        byId(`model-${side}`).hidden = !model;
        byId(`model-${side}`).textContent = model
          ? `The model says ${model.label} (probability ${model.probability.toFixed(2)}).` : "";
      }
    }
    if (byId("comment").value !== answer.comment) byId("comment").value = answer.comment;
    for (const side of SIDES) {
      for (const button of byId(`choices-${side}`).children) {
        const pressed = answer[side] === button.dataset.answer;
        button.setAttribute("aria-pressed", String(pressed));
        button.querySelector(".tick").textContent = pressed ? "\u2713" : "";
      }
    }
    measure();
  }

  // A box that scrolls must be within the keyboard's reach, and say that there is more.
  function measure() {
    for (const id of ["policy-text", "text-left", "text-right"]) {
      const box = byId(id);
      const long = box.scrollHeight > box.clientHeight + 1;
      if (long) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      const more = byId(id.replace("text-", "more-"));
      if (more !== box) more.hidden = !long;
    }
  }

  function jumpButton(place) {
    const button = make("button");
    button.type = "button";
    button.addEventListener("click", () => { go(place); byId("pair-title").focus(); });
    return label(button, place);
  }

  function label(button, place) {
    const answer = state.answers[place];
    button.textContent = `${place + 1}${isDone(answer) ? " \u2713" : ""}`;
    button.setAttribute("aria-label", `Pair ${place + 1}, ${stateOf(answer)}`);
    button.setAttribute("aria-current", String(place === state.place));
    return button;
  }

  function renderAll() {
    const list = byId("all-pairs");
    // Made once: a button that is made anew loses the keyboard's focus.
    if (!list.children.length) list.append(...pairs.map((_, place) => jumpButton(place)));
    pairs.forEach((_, place) => label(list.children[place], place));
  }

  function renderFinish() {
    shownPair = -1;
    const open = openPairs();
    byId("finish-title").textContent = open.length ? "You have reached the end" : "All pairs are done";
    byId("finish-text").textContent = open.length
      ? `${count(open.length, "pair")} still open. A pair counts once both of its ads have an answer:`
      : "Thank you. Download your verdicts and send the file to whoever gave you this page.";
    byId("finish-open").replaceChildren(...open.map(jumpButton));
    byId("finish-next").textContent = state.downloaded && numberDone()
      ? "Your latest answers are in the file that you downloaded." : "";
    if (byId("copy").open) byId("copy-text").value = verdictFile();
  }

  function describe(place) {
    if (place === pairs.length) return byId("finish-title").textContent;
    return `Pair ${place + 1} of ${pairs.length}, ${stateOf(state.answers[place])}.`;
  }

  // --- what the expert does ----------------------------------------------------------------------

  function go(place) {
    if (place < 0 || place > pairs.length) {
      say(place < 0 ? "This is the first pair." : "This is the end.");
      return;
    }
    const leaving = document.activeElement;
    state.place = place;
    save();
    render();
    say(describe(place));
    // Whoever stood on something that is gone now goes on at the heading.
    if (leaving && leaving !== document.body && !leaving.getClientRects().length) {
      byId(place === pairs.length ? "finish-title" : "pair-title").focus();
    }
    if (byId("work").getBoundingClientRect().top < 0) byId(place === pairs.length ? "finish" : "work").scrollIntoView();
  }

  function timeNow() {
    const now = new Date();
    // A clock that is decades off tells nothing; the importer would refuse the answer for it.
    return now.getUTCFullYear() >= 2001 && now.getUTCFullYear() < 2099 ? now.toISOString() : "";
  }

  // Changes the answers on the pair at hand; values is side -> answer.
  function answer(values) {
    const current = state.answers[state.place];
    const { left, right, leftTime, rightTime } = current;
    state.undo.push({ pair: state.place, left, right, leftTime, rightTime });
    state.undo.splice(0, state.undo.length - MAX_UNDO);
    for (const [side, value] of Object.entries(values)) {
      current[side] = value;
      current[`${side}Time`] = value ? timeNow() : "";
    }
    state.downloaded = false;
  }

  function choose(side, value) {
    // The same choice again takes it back.
    const again = state.answers[state.place][side] === value;
    answer({ [side]: again ? "" : value });
    save();
    render();
    const done = isDone(state.answers[state.place]);
    say(again ? `${NAMES[side]}: no answer.` : `${NAMES[side]}: ${words[value]}.${done ? " Both ads have an answer." : ""}`);
    if (done && settings.advance && !again) go(state.place + 1);
  }

  function skip() {
    if (state.place === pairs.length) return;
    answer({ left: "skip", right: "skip" });
    const place = state.place;
    go(place + 1);
    say(`Pair ${place + 1} skipped. ${describe(state.place)}`);
  }

  function undo() {
    const move = state.undo.pop();
    if (!move) {
      say("Nothing to undo.");
      return;
    }
    const { pair, left, right, leftTime, rightTime } = move;
    Object.assign(state.answers[pair], { left, right, leftTime, rightTime });
    state.downloaded = false;
    go(pair);
    say(`Undone. ${describe(pair)}`);
  }

  function nextOpen() {
    const open = openPairs();
    const next = open.find((place) => place > state.place) ?? open[0];
    if (next === undefined) say("No pair is open.");
    else go(next);
  }

  function commented() {
    state.answers[state.place].comment = byId("comment").value.slice(0, MAX_COMMENT);
    state.downloaded = false;
    clearTimeout(saveTimer);
    saveTimer = setTimeout(save, 300);
  }

  // --- verdicts go out ---------------------------------------------------------------------------

  function verdictFile() {
    const rows = [];
    pairs.forEach((pair, place) => {
      const given = state.answers[place];
      for (const side of SIDES) {
        const { id, key, text } = pair[side];
        rows.push({ pair_id: pair.id, side, ad_id: id, answer: given[side], time: given[`${side}Time`],
          comment: given.comment, key, text });
      }
    });
    const { task, task_version, round, part, parts, batch, labels } = data;
    const head = { format: FORMAT, format_version: FORMAT_VERSION, task, task_version, round, part, parts,
      batch, labels, expert, saved: timeNow() };
    return `${JSON.stringify({ ...head, rows }, null, 1)}\n`;
  }

  function fileName() {
    const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40);
    const part = data.parts > 1 ? `-part-${data.part}` : "";
    return `verdicts-${slug(data.task)}-round-${data.round}${part}-${slug(folded(expert)) || "expert"}.json`;
  }

  function download() {
    if (saveTimer) save();
    const url = URL.createObjectURL(new Blob([verdictFile()], { type: "application/json" }));
    const link = make("a");
    link.href = url;
    link.download = fileName();
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    state.downloaded = true;
    save();
    render();
    const open = openPairs().length;
    say(`${fileName()}: ${count(numberDone(), "pair")} done${open ? `, ${open} open` : ""}.`);
  }

  // --- beginnings --------------------------------------------------------------------------------

  function begin(name) {
    expert = name;
    inThisTab(name);
    const text = kept(keyOf(name));
    const found = text === null ? null : parsed(text);
    state = found || fresh();
    shownPair = -1;
    save();
    keep(`${PREFIX} expert`, name);
    if (text !== null && !found) keep(`${keyOf(name)} damaged`, text);
    // Pairs need the room more than the policy does once it is read, most of all on a phone.
    if (window.innerHeight < 700 || window.innerWidth < 704) byId("policy").open = false;
    render();
    byId(state.place === pairs.length ? "finish-title" : "pair-title").focus({ preventScroll: true });
    let greeting = `${describe(state.place)}`;
    if (found && found.answers.some(isStarted)) greeting = `Going on where you stopped, ${numberDone()} done. ${greeting}`;
    if (text !== null && !found) greeting = `What this browser had kept cannot be read; starting anew. ${greeting}`;
    say(greeting);
  }

  function ask() {
    state = null;
    expert = "";
    inThisTab("");
    render();
    byId("name").value = kept(`${PREFIX} expert`) || "";
    byId("name").focus();
    byId("name").select();
  }

  function started(event) {
    event.preventDefault();
    const name = byId("name").value.trim();
    const length = folded(name).length;
    const problem = length === 0 ? "Please write your name." : length > MAX_NAME ? "Please write a shorter name." : "";
    byId("name-error").textContent = problem;
    byId("name").setAttribute("aria-invalid", String(problem !== ""));
    if (problem) byId("name").focus();
    else begin(name);
  }

  function pressed(event) {
    const field = event.target instanceof Element && event.target.closest("textarea, input:not([type=checkbox])");
    if (event.key === "Escape" && field && state) {
      field.blur();
      byId(state.place === pairs.length ? "finish-title" : "pair-title").focus({ preventScroll: true });
      return;
    }
    if (!state || field || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      go(state.place + (event.key === "ArrowRight" ? 1 : -1));
      return;
    }
    if (!settings.shortcuts || event.repeat) return;
    // Where digits need the shift key (a French keyboard), the place on the board counts.
    const digit = /^[1-6]$/.test(event.key) ? event.key
      : !event.shiftKey && /^Digit[1-6]$/.test(event.code) ? event.code.slice(5) : "";
    const letter = event.key.toLowerCase();
    const actions = { s: skip, u: undo, n: nextOpen, d: download, p: togglePolicy,
      c: () => { if (state.place < pairs.length) byId("comment").focus(); } };
    if (digit) {
      if (state.place < pairs.length) choose(...KEYS[digit]);
    } else if (Object.hasOwn(actions, letter)) actions[letter]();
    else return;
    event.preventDefault();
  }

  function togglePolicy() {
    byId("policy").open = !byId("policy").open;
    if (byId("policy").open) byId("policy").scrollIntoView({ block: "nearest" });
  }

  // --- on paper ----------------------------------------------------------------------------------

  function renderPrint() {
    const head = [make("h1", byId("title").textContent), make("p", `Expert: ${expert || "_".repeat(30)}`)];
    const policy = make("div", data.policy, "prose");
    const articles = pairs.map((pair, place) => {
      const article = make("article");
      const given = state ? state.answers[place] : null;
      const sides = make("div", "", "sides");
      for (const side of SIDES) {
        const column = make("section");
        const text = make("div", "", "ad-print");
        text.dir = "auto";
        showText(text, pair[side].text);
        const boxes = make("p", "", "boxes");
        for (const value of ANSWERS) {
          boxes.append(make("span", `${given && given[side] === value ? "\u2611" : "\u2610"} ${words[value]}`), " ");
        }
        if (given && given[side] === "skip") boxes.append(make("span", words.skip));
        column.append(make("h3", NAMES[side]), text, boxes);
        sides.append(column);
      }
      article.append(make("h2", `Pair ${place + 1} of ${pairs.length} (${pair.id})`), sides,
        make("p", `Comment: ${given ? given.comment : ""}`, "note"));
      return article;
    });
    byId("print").replaceChildren(...head, policy, ...articles);
  }

  // --- wiring ------------------------------------------------------------------------------------

  function build() {
    showText(byId("policy-text"), data.policy);
    for (const side of SIDES) {
      for (const value of ANSWERS) {
        const key = Object.keys(KEYS).find((digit) => KEYS[digit][0] === side && KEYS[digit][1] === value);
        const button = make("button");
        button.type = "button";
        button.dataset.answer = value;
        button.setAttribute("aria-keyshortcuts", key);
        const cap = make("kbd", key);
        const tick = make("span", "", "tick");
        for (const part of [cap, tick]) part.setAttribute("aria-hidden", "true");
        const word = make("span");
        showText(word, words[value]);
        button.append(cap, " ", word, " ", tick);
        button.addEventListener("click", () => choose(side, value));
        byId(`choices-${side}`).append(button);
      }
    }
    const help = [
      ["1 2", `ad A: ${words.positive}, ${words.negative}`], ["3 4", `ad B: ${words.positive}, ${words.negative}`],
      ["5 6", `${words.unsure} about ad A, ad B`], ["s", "skip the pair"], ["u", "undo"],
      ["\u2190 \u2192", "previous and next pair"], ["n", "next open pair"], ["c", "comment; Esc leaves it"],
      ["p", "show or hide the policy"], ["d", "download verdicts"]];
    for (const [keys, meaning] of help) {
      const term = make("dt");
      for (const key of keys.split(" ")) term.append(make("kbd", key), " ");
      byId("key-list").append(term, make("dd", meaning));
    }
  }

  function listen() {
    const on = (id, action) => byId(id).addEventListener("click", action);
    byId("start-form").addEventListener("submit", started);
    byId("policy").addEventListener("toggle", measure);
    on("previous", () => go(state.place - 1));
    on("next", () => go(state.place + 1));
    on("skip", skip);
    on("undo", undo);
    on("download", download);
    on("finish-download", download);
    on("switch", () => { if (saveTimer) save(); ask(); });
    byId("comment").addEventListener("input", commented);
    byId("all").addEventListener("toggle", () => { if (state) renderAll(); });
    byId("copy").addEventListener("toggle", () => { if (state) byId("copy-text").value = verdictFile(); });
    byId("copy-text").addEventListener("focus", () => byId("copy-text").select());
    for (const name of ["shortcuts", "advance"]) {
      byId(name).addEventListener("change", () => {
        settings[name] = byId(name).checked;
        keep(`${PREFIX} settings`, JSON.stringify(settings));
      });
    }
    document.addEventListener("keydown", pressed);
    window.addEventListener("resize", measure);
    window.addEventListener("pagehide", () => { if (saveTimer) save(); });
    document.addEventListener("visibilitychange", () => { if (saveTimer) save(); });
    window.addEventListener("beforeunload", (event) => {
      if (saveTimer) save();
      if (state && !stored && !state.downloaded) event.preventDefault();
    });
    // The same expert in two tabs: the other tab's answers are taken over, not overwritten.
    window.addEventListener("storage", (event) => {
      const found = state && event.key === keyOf(expert) && event.newValue ? parsed(event.newValue) : null;
      if (!found) return;
      // What is being typed here is newer than what that tab knew of it.
      const typed = saveTimer && state.answers[state.place] ? state.answers[state.place].comment : null;
      clearTimeout(saveTimer);
      saveTimer = 0;
      state = { ...found, place: state.place };
      if (typed !== null) {
        state.answers[state.place].comment = typed;
        save();
      }
      render();
    });
    window.addEventListener("beforeprint", renderPrint);
    window.matchMedia("print").addEventListener("change", (event) => { if (event.matches) renderPrint(); });
  }

  function readSettings() {
    try {
      const found = JSON.parse(kept(`${PREFIX} settings`)) || {};
      for (const name of ["shortcuts", "advance"]) {
        if (typeof found[name] === "boolean") settings[name] = found[name];
      }
    } catch {
      // Damaged settings are no reason to stop: the defaults stand.
    }
    for (const name of ["shortcuts", "advance"]) byId(name).checked = settings[name];
  }

  build();
  listen();
  readSettings();
  stored = keep(`${PREFIX} test`, "1");
  warnOfStorage();
  const name = inThisTab();
  if (name) begin(name);
  else ask();
})();
