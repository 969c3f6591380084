"use strict";
// The review page. Ads, policy, names and comments reach the document through textContent alone, and
// what is stored or downloaded through JSON alone, so that nothing in them is ever markup or code.
(() => {
  const FORMAT = "ad-scout review page verdicts";
  const FORMAT_VERSION = 2;
  // Where ads stand on the page; the one ad of an item stands in the first place.
  const SIDES = ["left", "right"];
  const KEYS = { 1: ["left", "positive"], 2: ["left", "negative"], 3: ["right", "positive"],
    4: ["right", "negative"], 5: ["left", "unsure"], 6: ["right", "unsure"] };
  const ANSWERS = ["positive", "negative", "unsure"];
  const MAX_UNDO = 100;
  // As in the importer, which refuses longer names and cuts longer comments.
  const MAX_NAME = 100;
  const MAX_COMMENT = 10000;

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const items = data.items;
  const places = items.map((_, place) => place);
  const adAt = (item, side) => item.ads[SIDES.indexOf(side)];
  const sidesOf = (item) => SIDES.slice(0, item.ads.length);
  const nameOf = (item, side) => item.ads.length === 1 ? "Ad" : side === "left" ? "Ad A" : "Ad B";
  const sizes = new Set(items.map((item) => item.ads.length));
  const noun = sizes.size > 1 ? "item" : sizes.has(2) ? "pair" : "ad";
  const capital = (text) => text[0].toUpperCase() + text.slice(1);
  const titleOf = (place) => `${capital(noun)} ${place + 1} of ${items.length}`;
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
    element.replaceChildren(...shownParts(text));
  }

  // An ad that was made of several fields is shown as these, each under its name.
  function showAd(element, ad) {
    if (!ad.fields) {
      showText(element, ad.text);
      return;
    }
    const list = make("dl", "", "fields");
    for (const [name, value] of ad.fields) {
      const [term, shown] = [make("dt"), make("dd")];
      showText(term, name);
      showText(shown, value);
      for (const part of [term, shown]) part.dir = "auto";
      list.append(term, shown);
    }
    element.replaceChildren(list);
  }

  function shownParts(text) {
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
    return parts;
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
      answers: items.map(() => ({ left: "", right: "", leftTime: "", rightTime: "", comment: "" })) };
  }

  const isText = (value, limit) => typeof value === "string" && value.length <= limit;
  const isAnswer = (value) => value === "" || value === "skip" || ANSWERS.includes(value);
  const isPlace = (value, end) => Number.isInteger(value) && value >= 0 && value < end;
  const isMove = (move) => move !== null && typeof move === "object" && isPlace(move.place, items.length) &&
    SIDES.every((side) => isAnswer(move[side]) && isText(move[`${side}Time`], 40));

  // Returns what a stored text holds, or null for anything that this page did not write.
  function parsed(text) {
    try {
      const found = JSON.parse(text);
      const whole = found.format === 1 && isPlace(found.place, items.length + 1) &&
        typeof found.downloaded === "boolean" && Array.isArray(found.undo) && found.undo.every(isMove) &&
        Array.isArray(found.answers) && found.answers.length === items.length &&
        found.answers.every((answer, place) => isMove({ ...answer, place }) && isText(answer.comment, MAX_COMMENT));
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

  // What an item's ads are called so far, left first.
  const given = (place) => sidesOf(items[place]).map((side) => state.answers[place][side]);
  const isDone = (place) => given(place).every((value) => value !== "");
  const isStarted = (place) => given(place).some((value) => value !== "");
  const numberDone = () => places.filter(isDone).length;
  const openPlaces = () => places.filter((place) => !isDone(place));
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const say = (text) => { byId("status").textContent = text; };

  function stateOf(place) {
    if (given(place).every((value) => value === "skip")) return "skipped";
    if (isDone(place)) return "done";
    return isStarted(place) ? "half done" : "open";
  }

  function render() {
    const working = state !== null;
    const finished = working && state.place === items.length;
    byId("start").hidden = working;
    byId("work").hidden = !working || finished;
    byId("finish").hidden = !finished;
    for (const id of ["bar", "foot", "all", "keys"]) byId(id).hidden = !working;
    if (!working) {
      measure();
      return;
    }
    byId("expert").textContent = expert;
    byId("progress").max = items.length;
    byId("progress").value = numberDone();
    byId("progress-text").textContent = `${numberDone()} of ${count(items.length, noun)} done`;
    disable("previous", state.place === 0);
    disable("undo", state.undo.length === 0);
    disable("skip", finished);
    disable("next", finished);
    if (finished) renderFinish();
    else renderItem();
    if (byId("all").open) renderAll();
  }

  // Not the attribute disabled: it would throw the keyboard's focus away.
  function disable(id, off) {
    byId(id).setAttribute("aria-disabled", String(off));
  }

  let shownItem = -1;

  function renderItem() {
    const item = items[state.place];
    const answer = state.answers[state.place];
    byId("item-title").textContent = titleOf(state.place);
    byId("item-state").textContent = stateOf(state.place);
    if (shownItem !== state.place) {
      shownItem = state.place;
      byId("ads").classList.toggle("single", item.ads.length === 1);
      byId("ad-right").hidden = item.ads.length === 1;
      for (const side of sidesOf(item)) {
        const name = nameOf(item, side);
        byId(`title-${side}`).textContent = name;
        byId(`choices-${side}`).setAttribute("aria-label", `Label for ${name.replace("A", "a")}`);
        const box = byId(`text-${side}`);
        box.setAttribute("aria-label", `Text of ${name.replace("A", "a")}`);
        showAd(box, adAt(item, side));
        box.scrollTop = 0;
        const model = adAt(item, side).model;
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
    button.addEventListener("click", () => { go(place); byId("item-title").focus(); });
    return label(button, place);
  }

  function label(button, place) {
    button.textContent = `${place + 1}${isDone(place) ? " \u2713" : ""}`;
    button.setAttribute("aria-label", `${capital(noun)} ${place + 1}, ${stateOf(place)}`);
    button.setAttribute("aria-current", String(place === state.place));
    return button;
  }

  function renderAll() {
    const list = byId("all-items");
    // Made once: a button that is made anew loses the keyboard's focus.
    if (!list.children.length) list.append(...places.map(jumpButton));
    places.forEach((place) => label(list.children[place], place));
  }

  function renderFinish() {
    shownItem = -1;
    const open = openPlaces();
    byId("finish-title").textContent = open.length ? "You have reached the end" : `All ${noun}s are done`;
    const whole = sizes.has(2) ? " A pair counts once both of its ads have an answer:" : "";
    byId("finish-text").textContent = open.length
      ? `${count(open.length, noun)} still open.${whole}`
      : "Thank you. Download your verdicts and send the file to whoever gave you this page.";
    byId("finish-open").replaceChildren(...open.map(jumpButton));
    byId("finish-next").textContent = state.downloaded && numberDone()
      ? "Your latest answers are in the file that you downloaded." : "";
    if (byId("copy").open) byId("copy-text").value = verdictFile();
  }

  function describe(place) {
    if (place === items.length) return byId("finish-title").textContent;
    return `${titleOf(place)}, ${stateOf(place)}.`;
  }

  // --- what the expert does ----------------------------------------------------------------------

  function go(place) {
    if (place < 0 || place > items.length) {
      say(place < 0 ? `This is the first ${noun}.` : "This is the end.");
      return;
    }
    const leaving = document.activeElement;
    state.place = place;
    save();
    render();
    say(describe(place));
    // Whoever stood on something that is gone now goes on at the heading.
    if (leaving && leaving !== document.body && !leaving.getClientRects().length) {
      byId(place === items.length ? "finish-title" : "item-title").focus();
    }
    if (byId("work").getBoundingClientRect().top < 0) byId(place === items.length ? "finish" : "work").scrollIntoView();
  }

  function timeNow() {
    const now = new Date();
    // A clock that is decades off tells nothing; the importer would refuse the answer for it.
    return now.getUTCFullYear() >= 2001 && now.getUTCFullYear() < 2099 ? now.toISOString() : "";
  }

  // Changes the answers on the item at hand; values is side -> answer.
  function answer(values) {
    const current = state.answers[state.place];
    const { left, right, leftTime, rightTime } = current;
    state.undo.push({ place: state.place, left, right, leftTime, rightTime });
    state.undo.splice(0, state.undo.length - MAX_UNDO);
    for (const [side, value] of Object.entries(values)) {
      current[side] = value;
      current[`${side}Time`] = value ? timeNow() : "";
    }
    state.downloaded = false;
  }

  function choose(side, value) {
    const item = items[state.place];
    if (!sidesOf(item).includes(side)) return;
    // The same choice again takes it back.
    const again = state.answers[state.place][side] === value;
    answer({ [side]: again ? "" : value });
    save();
    render();
    const done = isDone(state.place);
    const both = done && item.ads.length === 2 ? " Both ads have an answer." : "";
    say(`${nameOf(item, side)}: ${again ? "no answer." : `${words[value]}.${both}`}`);
    if (done && settings.advance && !again) go(state.place + 1);
  }

  function skip() {
    if (state.place === items.length) return;
    answer(Object.fromEntries(sidesOf(items[state.place]).map((side) => [side, "skip"])));
    const place = state.place;
    go(place + 1);
    say(`${capital(noun)} ${place + 1} skipped. ${describe(state.place)}`);
  }

  function undo() {
    const move = state.undo.pop();
    if (!move) {
      say("Nothing to undo.");
      return;
    }
    const { place, left, right, leftTime, rightTime } = move;
    Object.assign(state.answers[place], { left, right, leftTime, rightTime });
    state.downloaded = false;
    go(place);
    say(`Undone. ${describe(place)}`);
  }

  function nextOpen() {
    const open = openPlaces();
    const next = open.find((place) => place > state.place) ?? open[0];
    if (next === undefined) say(`No ${noun} is open.`);
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
    items.forEach((item, place) => {
      const answers = state.answers[place];
      for (const where of sidesOf(item)) {
        const { side, id, key, text } = adAt(item, where);
        rows.push({ item_id: item.id, side, ad_id: id, answer: answers[where], time: answers[`${where}Time`],
          comment: answers.comment, key, text });
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
    const open = openPlaces().length;
    say(`${fileName()}: ${count(numberDone(), noun)} done${open ? `, ${open} open` : ""}.`);
  }

  // --- beginnings --------------------------------------------------------------------------------

  function begin(name) {
    expert = name;
    inThisTab(name);
    const text = kept(keyOf(name));
    const found = text === null ? null : parsed(text);
    state = found || fresh();
    shownItem = -1;
    save();
    keep(`${PREFIX} expert`, name);
    if (text !== null && !found) keep(`${keyOf(name)} damaged`, text);
    // Ads need the room more than the policy does once it is read, most of all on a phone.
    if (window.innerHeight < 700 || window.innerWidth < 704) byId("policy").open = false;
    render();
    byId(state.place === items.length ? "finish-title" : "item-title").focus({ preventScroll: true });
    let greeting = `${describe(state.place)}`;
    if (found && places.some(isStarted)) greeting = `Going on where you stopped, ${numberDone()} done. ${greeting}`;
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
      byId(state.place === items.length ? "finish-title" : "item-title").focus({ preventScroll: true });
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
      c: () => { if (state.place < items.length) byId("comment").focus(); } };
    if (digit) {
      if (state.place < items.length) choose(...KEYS[digit]);
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
    const articles = items.map((item, place) => {
      const article = make("article");
      const answers = state ? state.answers[place] : null;
      const sides = make("div", "", "sides");
      for (const side of sidesOf(item)) {
        const column = make("section");
        const text = make("div", "", "ad-print");
        text.dir = "auto";
        showAd(text, adAt(item, side));
        const boxes = make("p", "", "boxes");
        for (const value of ANSWERS) {
          boxes.append(make("span", `${answers && answers[side] === value ? "\u2611" : "\u2610"} ${words[value]}`), " ");
        }
        if (answers && answers[side] === "skip") boxes.append(make("span", words.skip));
        column.append(make("h3", nameOf(item, side)), text, boxes);
        sides.append(column);
      }
      article.append(make("h2", `${titleOf(place)} (${item.id})`), sides,
        make("p", `Comment: ${answers ? answers.comment : ""}`, "note"));
      return article;
    });
    byId("print").replaceChildren(...head, policy, ...articles);
  }

  // --- wiring ------------------------------------------------------------------------------------

  function build() {
    showText(byId("policy-text"), data.policy);
    for (const part of document.querySelectorAll(".noun")) part.textContent = noun;
    for (const part of document.querySelectorAll(".of-pairs")) part.hidden = !sizes.has(2);
    for (const part of document.querySelectorAll(".of-ads")) part.hidden = sizes.has(2);
    byId("skip").setAttribute("aria-label", `Skip this ${noun}`);
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
    const ofPairs = [
      ["1 2", `ad A${sizes.has(1) ? ", or the only ad" : ""}: ${words.positive}, ${words.negative}`],
      ["3 4", `ad B: ${words.positive}, ${words.negative}`], ["5 6", `${words.unsure} about ad A, ad B`]];
    const ofAds = [["1 2", `${words.positive}, ${words.negative}`], ["5", words.unsure]];
    const help = [...(sizes.has(2) ? ofPairs : ofAds), ["s", `skip the ${noun}`], ["u", "undo"],
      ["\u2190 \u2192", `previous and next ${noun}`], ["n", `next open ${noun}`], ["c", "comment; Esc leaves it"],
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
