// The page of `melo serve`. Names of files, tasks and classes come from outside: they only ever become text.

/** Requests at once: one computes while the next is sent and decoded. */
const IN_FLIGHT = 2;
/** How often the server is asked for its state, ms. */
const POLL_MS = 4000;
/** Longest list of classes that is shown at once. */
const CLASSES_SHOWN = 8;
/** What a full queue is waited for where the server does not say, s. */
const BUSY_S = 5;
/** Throughputs kept for the little curves. */
const RATES_KEPT = 60;

// The document.

const $ = id => document.getElementById(id);
const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
const stamp = template => $(template).content.firstElementChild.cloneNode(true);
const show = (node, on) => { node.hidden = !on; };
/** What a screen reader says, now and only now. */
const announce = text => { $('announce').textContent = text; };

/** An element with properties and children; strings become text. */
function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A name that may break after its underscores. */
function named(text) {
  const pieces = text.split(/(?<=_)/);
  return element('span', {}, ...pieces.flatMap((piece, index) => (index ? [element('wbr'), piece] : [piece])));
}

/** Sets text only where it changed, so that selections and screen readers are left alone. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const kindText = task => (task.kind === 'single_label' ? `one of ${plural(task.classes.length, 'class', 'classes')}` : `any of ${plural(task.classes.length, 'finding')}`);

/** A probability as a percentage that claims no certainty. */
function percent(p, digits = 1) {
  const smallest = 10 ** -digits;
  const value = p * 100;
  if (value > 0 && value < smallest / 2) return `< ${smallest}\u202f%`;
  if (value < 100 && value > 100 - smallest / 2) return `> ${(100 - smallest).toFixed(digits)}\u202f%`;
  return `${value.toFixed(digits)}\u202f%`;
}

/** Two percentages with as many digits as it takes to tell them apart. */
function percentPair(a, b) {
  for (let digits = 1; ; digits += 1) {
    const pair = [percent(a, digits), percent(b, digits)];
    if (pair[0] !== pair[1] || a === b || digits === 6) return pair;
  }
}

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
}

/** A digest, shortened, with a button that copies all of it. */
function digest(value, what) {
  const code = element('code', { title: value }, value.slice(0, 12), '…');
  const button = element('button', { type: 'button', className: 'copy quiet' }, 'Copy');
  button.setAttribute('aria-label', `Copy the ${what}`);
  button.addEventListener('click', async () => {
    const copied = await copy(value, code);
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    announce(copied ? `The ${what} was copied` : `The ${what} is selected`);
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
  return element('span', { className: 'digest' }, code, ' ', button);
}

/** Browsers give the clipboard to pages of HTTPS and of this machine only; elsewhere the text is selected. */
async function copy(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    code.textContent = text;
    getSelection().selectAllChildren(code);
    return false;
  }
}

// The server.

class Refused extends Error {
  constructor(status, message, { key, retryAfter } = {}) {
    super(message);
    Object.assign(this, { status, key, retryAfter });
  }
}

/** Nobody answered. */
const GONE = 0;

function refusal(status, text, more) {
  let message = `The server answered with status ${status} and no reason.`;
  try {
    message = JSON.parse(text).error.message || message;
  } catch { /* what stands between us and the server does not speak its language */ }
  return new Refused(status, message, more);
}

const key = {
  value: sessionStorage.getItem('melo-key') || '',
  /** Resolves at the next key. */
  entered: null,
  headers: () => (key.value ? { Authorization: `Bearer ${key.value}` } : {}),
};

const get = async path => (await answerOf(path)).json();

async function answerOf(path) {
  const used = key.value;
  let response;
  try {
    response = await fetch(path, { headers: key.headers(), cache: 'no-store' });
  } catch {
    throw new Refused(GONE, 'The server could not be reached.');
  }
  if (!response.ok) throw refusal(response.status, await response.text(), { key: used });
  return response;
}

/** One image to all chosen tasks. `XMLHttpRequest` because it tells how much was sent. */
function predict(file, tasks, heatmap, signal, onSent) {
  const used = key.value;
  const form = new FormData();
  form.append('tasks', tasks.join(','));
  form.append('heatmap', String(heatmap));
  form.append('preview', 'true');
  form.append('image', file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', 'v1/predict');
    for (const [name, value] of Object.entries(key.headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = event => { if (event.lengthComputable) onSent(event.loaded / event.total); };
    request.upload.onload = () => onSent(1);
    request.onerror = () => reject(new Refused(GONE, 'The server could not be reached; nothing was answered.'));
    request.onabort = () => reject(signal.reason);
    request.onload = () => {
      if (request.status !== 200) {
        const wait = Number.parseInt(request.getResponseHeader('Retry-After'), 10);
        reject(refusal(request.status, request.responseText, { key: used, retryAfter: Number.isFinite(wait) ? wait : BUSY_S }));
        return;
      }
      try {
        resolve(JSON.parse(request.responseText).images[0]);
      } catch {
        reject(new Refused(request.status, 'The answer could not be read.'));
      }
    };
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(form);
  });
}

const cards = new Map();

/** The card of a version, asked for once. */
function cardOf(task, version) {
  if (!cards.has(version)) {
    const asked = get(`v1/tasks/${encodeURIComponent(`${task}@${version}`)}`).then(found => found.card);
    asked.catch(() => cards.delete(version));
    cards.set(version, asked);
  }
  return cards.get(version);
}

// Its state, asked for again and again.

/** What `GET /v1/tasks` last said. */
let server = null;
let polling = null;
let goneSince = null;
const rates = new Map();

async function poll() {
  clearTimeout(polling);
  try {
    server = await get('v1/tasks');
    if (goneSince) announce('The server answers again.');
    goneSince = null;
    banner(null);
    for (const task of server.tasks) {
      const kept = rates.get(task.name) || [];
      rates.set(task.name, [...kept, task.images_per_minute].slice(-RATES_KEPT));
    }
    drawServer();
    drawChoice();
    drawServed();
    drawRun();
    offerSamples();
  } catch (error) {
    trouble(error);
  }
  polling = setTimeout(poll, POLL_MS);
}

function trouble(error) {
  const state = $('server');
  if (error.status === 401) {
    state.dataset.state = 'locked';
    write($('server-text'), 'An API key is needed');
    askForKey(error.key);
  } else if (error.status === GONE) {
    goneSince ??= new Date();
    state.dataset.state = 'gone';
    write($('server-text'), 'Not reachable');
    banner(`The server has not answered since ${goneSince.toLocaleTimeString()}. It is asked again every ${POLL_MS / 1000} seconds; what was answered stays here.`);
  } else if (error instanceof Refused) {
    state.dataset.state = 'gone';
    write($('server-text'), `Status ${error.status}`);
    banner(error.message);
  } else {
    throw error;
  }
}

function banner(text, action, act) {
  write($('banner-text'), text || '');
  show($('banner'), Boolean(text));
  show($('banner-action'), Boolean(action));
  if (action) {
    write($('banner-action'), action);
    $('banner-action').onclick = act;
  }
}

function drawServer() {
  const { backbone, queue_rows: queued, queue_capacity: capacity, tasks, problems } = server;
  const refused = Object.entries(problems);
  const load = capacity ? `${queued} of ${capacity}` : String(queued);
  $('server').dataset.state = capacity && queued >= 0.8 * capacity ? 'busy' : 'ready';
  write($('server-text'), `${backbone.name}, ${backbone.precision}, ${queued ? `queue ${load}` : 'queue empty'}`);
  write($('task-count'), String(tasks.length));
  show($('problems'), refused.length > 0);
  const lines = refused.map(([file, reason]) => element('li', {}, element('b', {}, file), `: ${reason}`));
  $('problem-list').replaceChildren(...lines);
  const facts = {
    Backbone: [backbone.name],
    'Backbone digest': [digest(backbone.digest, 'backbone digest')],
    Precision: [backbone.precision],
    Queue: [load, element('small', {}, ' images × tasks')],
    'Up for': [duration(server.uptime_seconds)],
    Tasks: [String(tasks.length)],
    'Refused plug-ins': [String(refused.length)],
  };
  fill($('server-facts'), facts, JSON.stringify([backbone, load, duration(server.uptime_seconds), tasks.length, refused.length]));
}

/** A list of definitions, drawn again only where `state` changed. */
function fill(list, facts, state) {
  if (list.dataset.drawn === state) return;
  list.dataset.drawn = state;
  list.replaceChildren(...Object.entries(facts).map(([name, values]) => definition(name, ...values)));
}

const definition = (name, ...values) => element('div', {}, element('dt', {}, name), element('dd', {}, ...values));

// The key.

/** Whether the dialogue was open already: it opens by itself once, then there are buttons for it. */
let keyAsked = false;

/** After a refusal of `used`, which may be older than the key of now. */
function askForKey(used) {
  if (used !== key.value) return;
  const wrong = used !== '';
  if (wrong) {
    key.value = '';
    sessionStorage.removeItem('melo-key');
  }
  banner(wrong ? 'The server did not accept the API key.' : 'This server asks for an API key.', 'Enter a key', openKey);
  show($('key-open'), true);
  if ((wrong || !keyAsked) && !$('key-dialog').open) {
    openKey();
    if (wrong) write($('key-why'), 'The server did not accept this key. Check it for missing characters.');
  }
  key.entered ??= deferred();
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

function openKey() {
  $('key').value = '';
  write($('key-why'), 'This server answers only to those who have a key. Whoever runs it hands them out.');
  show($('key-forget'), key.value !== '');
  $('key-dialog').showModal();
  $('key').focus();
}

$('key-open').addEventListener('click', openKey);
$('key-cancel').addEventListener('click', () => $('key-dialog').close());
$('key-dialog').addEventListener('close', () => { keyAsked = true; });
$('key-forget').addEventListener('click', () => {
  key.value = '';
  sessionStorage.removeItem('melo-key');
  $('key-dialog').close();
  announce('The key was forgotten');
  poll();
});
$('key-form').addEventListener('submit', event => {
  event.preventDefault();
  key.value = $('key').value.trim();
  sessionStorage.setItem('melo-key', key.value);
  $('key').value = '';
  $('key-dialog').close();
  key.entered?.resolve();
  key.entered = null;
  poll();
});
show($('key-open'), key.value !== '');

// The choice of tasks.

/** Tasks that are not chosen: new ones are, until somebody says otherwise. */
const unchosen = new Set();
let everyNewOne = true;
const rows = new Map();

const matches = (task, wanted) => [task.name, ...task.classes].some(name => name.toLowerCase().includes(wanted));
const chosen = () => (server ? server.tasks.filter(task => !unchosen.has(task.name)) : []);

function drawChoice() {
  const names = new Set(server.tasks.map(task => task.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  for (const task of server.tasks) {
    if (!rows.has(task.name)) {
      if (!everyNewOne) unchosen.add(task.name);
      rows.set(task.name, choiceRow(task));
    }
    const row = rows.get(task.name);
    write(part(row, 'about'), kindText(task));
    if (row.parentNode === null) $('task-choice').append(row);
  }
  searchChoice();
}

function choiceRow(task) {
  const row = stamp('choice-row');
  const box = row.querySelector('input');
  part(row, 'name').textContent = task.name;
  box.checked = !unchosen.has(task.name);
  box.addEventListener('change', () => {
    if (box.checked) unchosen.delete(task.name);
    else unchosen.add(task.name);
    everyNewOne = false;
    drawRun();
    noteChoice();
  });
  return row;
}

function searchChoice() {
  const wanted = $('search').value.trim().toLowerCase();
  for (const task of server?.tasks ?? []) show(rows.get(task.name), matches(task, wanted));
  noteChoice();
}

function noteChoice() {
  if (!server) return;
  const all = server.tasks.length;
  const seen = [...rows.values()].filter(row => !row.hidden).length;
  const filtered = seen < all ? `, ${seen} shown` : '';
  write($('choice-note'), all ? `${chosen().length} of ${all} chosen${filtered}` : 'No task is served yet. Put plug-ins into the folder that the server watches.');
}

/** All, or none, of those that the search shows. */
function choose(on) {
  for (const task of server?.tasks ?? []) {
    const row = rows.get(task.name);
    if (row.hidden) continue;
    row.querySelector('input').checked = on;
    if (on) unchosen.delete(task.name);
    else unchosen.add(task.name);
  }
  everyNewOne = on && unchosen.size === 0;
  drawRun();
  noteChoice();
}

$('search').addEventListener('input', searchChoice);
$('choose-all').addEventListener('click', () => choose(true));
$('choose-none').addEventListener('click', () => choose(false));

// Images.

/** In the order they came: `{file, view, state, asked, result, failure, seconds, stop, urls}`. */
let images = [];
const WORKING = new Set(['waiting', 'sending', 'computing', 'busy', 'key']);

function add(files) {
  if (files.length === 0) return;
  for (const file of files) {
    const image = { file, state: 'new', urls: [] };
    image.view = imageView(image);
    images.push(image);
    $('images').append(image.view);
    setState(image, 'new');
  }
  announce(`${plural(files.length, 'image')} added`);
  drawResults();
}

function imageView(image) {
  const view = stamp('image-view');
  const preview = part(view, 'preview');
  part(view, 'name').textContent = image.file.name;
  preview.alt = `Preview of ${image.file.name}`;
  preview.onload = () => { show(preview, true); show(part(view, 'placeholder'), false); show(part(view, 'enlarge'), true); };
  // DICOM and the like: the server decodes them.
  preview.onerror = () => show(preview, false);
  preview.src = urlOf(image, image.file);
  part(view, 'remove').setAttribute('aria-label', `Remove ${image.file.name}`);
  part(view, 'remove').addEventListener('click', () => remove(image));
  part(view, 'stop').addEventListener('click', () => {
    image.stop?.abort();
    pump();
    view.focus();
  });
  part(view, 'again').addEventListener('click', () => { enqueue([image]); view.focus(); });
  part(view, 'which').addEventListener('change', () => showHeat(image));
  part(view, 'opacity').addEventListener('input', () => showHeat(image));
  part(view, 'enlarge').addEventListener('click', event => {
    const large = view.classList.toggle('large');
    event.target.setAttribute('aria-pressed', String(large));
    event.target.textContent = large ? 'Smaller' : 'Enlarge';
  });
  return view;
}

function urlOf(image, blob) {
  const url = URL.createObjectURL(blob);
  image.urls.push(url);
  return url;
}

const pngOf = base64 => new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], { type: 'image/png' });

function remove(image) {
  image.stop?.abort();
  const next = image.view.nextElementSibling || image.view.previousElementSibling;
  image.view.remove();
  image.urls.forEach(url => URL.revokeObjectURL(url));
  images = images.filter(other => other !== image);
  announce(`${image.file.name} removed`);
  (next ? part(next, 'remove') : $('pick')).focus();
  drawResults();
}

const STATUS = {
  new: () => 'Not asked yet',
  waiting: () => 'Waiting for its turn',
  sending: image => `Sending ${Math.round(100 * (image.sent || 0))}\u202f%`,
  computing: image => `Computing ${plural(image.asking, 'task')}`,
  busy: image => `The server is busy. Trying again in ${image.wait} s`,
  key: () => 'Waiting for an API key',
  done: image => `${plural(image.result.answers.length, 'answer')} in ${image.seconds.toFixed(1)} s`,
  failed: () => 'Not answered',
  cancelled: () => 'Cancelled',
};

function setState(image, state) {
  image.state = state;
  const { view } = image;
  const working = WORKING.has(state);
  view.dataset.state = state;
  view.setAttribute('aria-busy', String(working));
  write(part(view, 'status'), STATUS[state](image));
  show(part(view, 'stop'), working);
  show(part(view, 'again'), state === 'failed' || state === 'cancelled');
  show(part(view, 'sent'), state === 'sending');
  part(view, 'sent').value = 100 * (image.sent || 0);
  show(part(view, 'failure'), state === 'failed');
  write(part(view, 'failure'), state === 'failed' ? image.failure : '');
}

// The work: a few requests at once, the rest waits.

let active = 0;
let batch = [];

/** What a run would ask; images that were asked exactly this need no second one. */
const question = () => JSON.stringify([chosen().map(task => [task.name, task.version]), $('heatmaps').checked]);
const unasked = () => images.filter(image => !WORKING.has(image.state) && !(settled(image) && image.asked === question()));
/** Answered, or refused in a way that asking again does not change. */
const settled = image => image.state === 'done' || (image.state === 'failed' && image.refusedFor >= 400 && image.refusedFor < 500);

function enqueue(which) {
  if (!server || chosen().length === 0) return;
  for (const image of which) {
    Object.assign(image, { asked: question(), asking: chosen().length, tasks: chosen().map(task => task.name), heatmap: $('heatmaps').checked });
    image.stop = new AbortController();
    image.sent = 0;
    setState(image, 'waiting');
  }
  batch = [...batch.filter(image => WORKING.has(image.state) && !which.includes(image)), ...which];
  pump();
}

function pump() {
  for (const image of images) {
    if (image.state === 'waiting' && image.stop.signal.aborted) setState(image, 'cancelled');
    else if (image.state === 'waiting' && active < IN_FLIGHT) void work(image);
  }
  drawResults();
}

async function work(image) {
  const { signal } = image.stop;
  active += 1;
  setState(image, 'sending');
  const started = performance.now();
  try {
    const result = await answered(image, signal);
    image.seconds = (performance.now() - started) / 1000;
    await take(image, result);
    setState(image, 'done');
    announce(`${image.file.name}: ${result.answers.map(answer => `${answer.task}: ${verdict(answer)}`).join('. ')}`);
  } catch (error) {
    if (signal.aborted) {
      setState(image, 'cancelled');
    } else {
      image.failure = error.message;
      image.refusedFor = error.status;
      setState(image, 'failed');
      announce(`${image.file.name}: ${error.message}`);
      if (!(error instanceof Refused)) throw error;
    }
  } finally {
    active -= 1;
    pump();
    if (active === 0) poll();
  }
}

/** Asks until there is an answer, a refusal for good, or somebody cancels. */
async function answered(image, signal) {
  const onSent = share => {
    image.sent = share;
    setState(image, share < 1 ? 'sending' : 'computing');
  };
  for (;;) {
    signal.throwIfAborted();
    try {
      return await predict(image.file, image.tasks, image.heatmap, signal, onSent);
    } catch (error) {
      if (error.status === 429) await waitBusy(image, error.retryAfter, signal);
      else if (error.status === 401) await waitKey(image, error, signal);
      else throw error;
    }
  }
}

async function waitBusy(image, seconds, signal) {
  announce(`The server is busy. ${image.file.name} is tried again in ${seconds} seconds.`);
  for (image.wait = seconds; image.wait > 0; image.wait -= 1) {
    setState(image, 'busy');
    await unless(signal, new Promise(resolve => { setTimeout(resolve, 1000); }));
  }
}

async function waitKey(image, error, signal) {
  setState(image, 'key');
  trouble(error);
  if (key.entered) await unless(signal, key.entered.promise);
}

/** The promise, or a rejection as soon as somebody cancels. */
function unless(signal, promise) {
  return Promise.race([promise, new Promise((_, reject) => { signal.addEventListener('abort', () => reject(signal.reason), { once: true }); })]);
}

// Answers.

async function take(image, result) {
  for (const url of image.urls.splice(0)) URL.revokeObjectURL(url);
  part(image.view, 'preview').src = urlOf(image, pngOf(result.preview));
  delete result.preview;
  image.heats = new Map();
  for (const answer of result.answers) {
    if (!answer.heatmap) continue;
    image.heats.set(answer.task, urlOf(image, pngOf(answer.heatmap.png)));
    delete answer.heatmap.png;
  }
  image.result = result;
  const drawn = await Promise.all(result.answers.map(answer => answerView(image, answer)));
  part(image.view, 'answers').replaceChildren(...drawn);
  offerHeat(image);
}

function verdict(answer) {
  if (answer.kind === 'single_label') return answer.predicted;
  if (answer.findings.length === 0) return 'no finding reaches its threshold';
  return `${answer.findings.join(', ')} found`;
}

async function answerView(image, answer) {
  const view = stamp('answer-view');
  const heatmap = part(view, 'heatmap');
  view.dataset.task = answer.task;
  part(view, 'task').textContent = answer.task;
  drawVerdict(part(view, 'verdict'), answer);
  show(heatmap, Boolean(answer.heatmap));
  heatmap.addEventListener('click', () => {
    const which = part(image.view, 'which');
    which.value = which.value === answer.task ? '' : answer.task;
    showHeat(image);
  });
  cardWhenOpened(part(view, 'card'), answer.task, answer.version);
  const card = await cardOf(answer.task, answer.version).catch(() => null);
  drawFigures(part(view, 'figures'), card);
  drawClasses(view, classesOf(answer, card));
  return view;
}

function drawVerdict(node, answer) {
  const names = answer.findings ?? [answer.predicted];
  node.dataset.found = String(names.length > 0);
  if (names.length === 0) node.textContent = 'No finding reaches its threshold';
  else node.replaceChildren(element('b', {}, ...names.flatMap((name, index) => [index ? ', ' : '', named(name)])));
}

/**
 * The classes of an answer in the order of the head. That order is the card's: an object whose keys look like numbers
 * loses its own in JavaScript. Without the card, thresholds cannot be told apart, and findings still can.
 */
function classesOf(answer, card) {
  const names = card ? card.classes : Object.keys(answer.probabilities);
  return names.map((name, index) => ({
    name,
    probability: answer.probabilities[name],
    threshold: card && answer.thresholds ? answer.thresholds[index] : undefined,
    found: answer.findings ? answer.findings.includes(name) : answer.predicted === name,
    multi: Boolean(answer.findings),
  }));
}

function drawClasses(view, classes) {
  const list = part(view, 'classes');
  const rest = part(view, 'rest');
  const rank = [...classes].sort((a, b) => Number(b.found) - Number(a.found) || b.probability - a.probability);
  const first = new Set(rank.slice(0, CLASSES_SHOWN));
  const lines = classes.map(each => {
    const line = classRow(each);
    if (!first.has(each)) line.classList.add('less');
    return line;
  });
  list.replaceChildren(...lines);
  if (classes.length <= CLASSES_SHOWN) return;
  const toggle = all => {
    list.classList.toggle('all', all);
    rest.textContent = all ? `Show the ${CLASSES_SHOWN} foremost` : `Show all ${classes.length} classes`;
    rest.setAttribute('aria-expanded', String(all));
  };
  rest.addEventListener('click', () => toggle(!list.classList.contains('all')));
  show(rest, true);
  toggle(false);
}

function classRow({ name, probability, threshold, found, multi }) {
  const row = stamp('class-row');
  const tick = row.querySelector('.tick');
  row.dataset.class = name;
  row.dataset.probability = String(probability);
  row.dataset.found = String(found);
  row.dataset.kind = multi ? 'finding' : 'class';
  row.title = `${name}: ${probability}`;
  part(row, 'name').append(named(name));
  part(row, 'mark').textContent = multi ? 'found' : 'predicted';
  show(part(row, 'mark'), found);
  row.querySelector('.fill').style.width = `${100 * probability}%`;
  if (threshold === undefined) {
    part(row, 'value').textContent = percent(probability);
    return row;
  }
  const [value, from] = percentPair(probability, threshold);
  row.dataset.threshold = String(threshold);
  row.title += `, threshold ${threshold}`;
  part(row, 'value').textContent = value;
  part(row, 'threshold').textContent = `${found ? '≥' : '<'} ${from}`;
  part(row, 'threshold').title = 'the threshold of this finding';
  show(tick, true);
  tick.style.left = `${100 * threshold}%`;
  return row;
}

// Heat maps.

function offerHeat(image) {
  const which = part(image.view, 'which');
  const before = which.value;
  const options = image.result.answers.filter(answer => answer.heatmap);
  which.replaceChildren(new Option('none', ''), ...options.map(({ task, heatmap }) => new Option(`${task}: ${heatmap.class}`, task)));
  which.value = image.heats.has(before) ? before : '';
  show(part(image.view, 'heat-field'), options.length > 0);
  showHeat(image);
}

function showHeat(image) {
  const { view } = image;
  const task = part(view, 'which').value;
  const heat = part(view, 'heat');
  const answer = image.result.answers.find(answer => answer.task === task);
  const opacity = Number(part(view, 'opacity').value);
  show(heat, Boolean(answer));
  for (const name of ['opacity-field', 'legend']) show(part(view, name), Boolean(answer));
  if (answer) {
    heat.src = image.heats.get(task);
    heat.alt = `Heat map of ${task}: where ${answer.heatmap.class} was seen`;
  }
  heat.style.opacity = String(opacity / 100);
  write(part(view, 'opacity-value'), `${opacity}\u202f%`);
  for (const section of view.querySelectorAll('.answer')) {
    const on = section.dataset.task === task;
    const button = part(section, 'heatmap');
    button.dataset.on = String(on);
    write(button, on ? 'Hide heat map' : 'Show heat map');
    button.setAttribute('aria-label', `${button.textContent} of ${section.dataset.task}`);
  }
}

// Cards.

const FIGURES = { auc_macro: 'macro AUC', acc: 'accuracy' };
const SPLITS = { test: 'Test', val: 'Validation' };
const ofClass = ['auc', 'sensitivity', 'specificity'];

/** A figure with its interval, such as `0.91 [0.88, 0.94]`. */
function figure(card, name, digits = 2) {
  const value = card.metrics[name];
  if (value === undefined) return null;
  const interval = card.metric_intervals[name];
  return value.toFixed(digits) + (interval ? ` [${interval.map(bound => bound.toFixed(digits)).join(', ')}]` : '');
}

function headline(card) {
  for (const [split, title] of Object.entries(SPLITS)) {
    const known = Object.entries(FIGURES).filter(([name]) => card.metrics[`${split}_${name}`] !== undefined);
    if (known.length === 0) continue;
    return known.map(([name, text], index) => [index ? text : `${title} ${text}`, figure(card, `${split}_${name}`)]);
  }
  return [];
}

function drawFigures(node, card) {
  const known = card ? headline(card) : [];
  const measured = known.flatMap(([title, value], index) => [index ? ' · ' : '', `${title} `, element('b', {}, value)]);
  if (!card) node.textContent = 'The card could not be read; how good this task is, is not known.';
  else if (known.length === 0) node.textContent = 'The card holds no figures: how good this task is, is not known.';
  else node.replaceChildren(...measured, ...(hasTest(card) ? [] : [' · not measured on test data']));
}

const hasTest = card => Object.keys(card.metrics).some(name => name.startsWith('test_'));

function cardWhenOpened(details, task, version) {
  const body = details.querySelector('.card');
  details.addEventListener('toggle', async () => {
    if (!details.open || body.dataset.drawn) return;
    body.textContent = 'Asking the server';
    try {
      body.replaceChildren(...cardView(await cardOf(task, version), version));
      body.dataset.drawn = 'true';
    } catch (error) {
      body.textContent = error.message;
    }
  });
}

function cardView(card, version) {
  return [
    title('How good it is'), figureTable(card),
    title('Classes'), classTable(card),
    title('How it is used'), facts({
      Input: [inputText(card.preprocess)],
      Normalisation: [`mean ${card.preprocess.mean.join(', ')}; deviation ${card.preprocess.std.join(', ')}`],
      ...(card.preprocess.rendering ? { Rendering: [plain(card.preprocess.rendering)] } : {}),
      Calibration: [`temperature ${Number(card.temperature.toFixed(4))}`],
      Adapter: [adapterText(card)],
      Backbone: [card.backbone.name],
      'Backbone digest': [digest(card.backbone.digest, 'backbone digest')],
      'Version digest': [digest(version, 'version digest')],
    }),
    title('Where it comes from'), facts({
      Software: [card.provenance.software || 'unknown'],
      'Training images': [String(card.provenance.train_images)],
      Seed: [String(card.provenance.seed)],
      Precision: [card.provenance.precision],
      'Data digest': card.provenance.data_digest ? [digest(card.provenance.data_digest, 'data digest')] : ['unknown'],
      ...(card.provenance.split_digest ? { 'Split digest': [digest(card.provenance.split_digest, 'split digest')] } : {}),
      Settings: [plain(card.provenance.settings)],
    }),
  ];
}

const title = text => element('h5', {}, text);
const facts = entries => element('dl', { className: 'facts' }, ...Object.entries(entries).map(([name, values]) => definition(name, ...values)));
const inputText = p => `${p.size} × ${p.size} pixels, ${p.crop_mode}, ${p.interpolation}, crop ${p.crop_pct}`;

function adapterText({ lora, bottleneck }) {
  const parts = [];
  if (lora?.rank) parts.push(`rank ${lora.rank}, alpha ${lora.alpha} on ${lora.targets.join(', ')} of ${plural(lora.blocks.length, 'block')}`);
  if (bottleneck?.width) parts.push(`bottlenecks of width ${bottleneck.width} in ${plural(bottleneck.blocks.length, 'block')}`);
  return parts.join('; ') || 'none: a head alone';
}

/** Any value as words: `method lora, epochs 7`. */
function plain(value) {
  if (value === null || typeof value !== 'object') return String(value ?? 'none');
  if (Array.isArray(value)) return value.map(plain).join(' ');
  const empty = inner => typeof inner === 'object' && inner !== null && Object.keys(inner).length === 0;
  const words = Object.entries(value).filter(([, inner]) => !empty(inner)).map(([name, inner]) => {
    const text = plain(inner);
    return `${name.replaceAll('_', ' ')} ${typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? `(${text})` : text}`;
  });
  return words.join(', ');
}

function table(head, lines) {
  const row = (tag, cells) => element('tr', {}, ...cells.map((cell, index) => element(index ? tag : 'th', { scope: tag === 'th' ? 'col' : 'row' }, cell)));
  const made = element('table', {}, element('thead', {}, row('th', head)), element('tbody', {}, ...lines.map(line => row('td', line))));
  const box = element('div', { className: 'scroll', tabIndex: 0 }, made);
  box.setAttribute('role', 'region');
  box.setAttribute('aria-label', head.join(', '));
  return box;
}

function figureTable(card) {
  const names = Object.keys(card.metrics).filter(name => !name.includes('/') && name !== 'best_epoch');
  const order = name => `${name.startsWith('test_') ? 0 : 1}${name}`;
  if (names.length === 0) return element('p', {}, 'Nothing was measured.');
  names.sort((a, b) => order(a).localeCompare(order(b)));
  const lines = names.map(name => {
    const [split, ...rest] = name.split('_');
    const known = SPLITS[split] ? `${SPLITS[split]} ${FIGURES[rest.join('_')] ?? rest.join(' ')}` : name.replaceAll('_', ' ');
    return [known, figure(card, name, 3)];
  });
  return table(['Figure', 'Value [95\u202f% interval]'], lines);
}

function classTable(card) {
  const columns = ofClass.filter(name => card.classes.some(one => card.metrics[`test_${name}/${one}`] !== undefined));
  const names = { auc: 'Test AUC', sensitivity: 'Sensitivity', specificity: 'Specificity' };
  const multi = card.kind === 'multi_label';
  const lines = card.classes.map((one, index) => [
    one,
    multi ? `from ${percent(card.thresholds[index])}` : 'the most probable',
    ...columns.map(name => figure(card, `test_${name}/${one}`, 2) ?? 'unknown'),
  ]);
  return table(['Class', 'Reported', ...columns.map(name => names[name])], lines);
}

// Everything that was answered.

function drawResults() {
  const count = images.length;
  show($('empty'), count === 0);
  show($('results-tools'), count > 0);
  write($('results-title'), plural(count, 'image'));
  $('save-json').disabled = $('save-csv').disabled = !images.some(image => image.result || image.failure);
  drawOverview();
  drawRun();
}

function drawRun() {
  const run = $('run');
  const wanted = unasked().length;
  const tasks = chosen().length;
  const working = batch.filter(image => WORKING.has(image.state) && images.includes(image)).length;
  const asked = batch.filter(image => images.includes(image)).length;
  const reason = !server ? 'Waiting for the server' : images.length === 0 ? 'Add an image first' : tasks === 0 ? 'Choose a task first'
    : wanted === 0 ? (working ? 'Asking' : 'Nothing left to ask') : null;
  // Who has pressed the button should not lose the focus with it.
  run.setAttribute('aria-disabled', String(Boolean(reason)));
  run.disabled = Boolean(reason) && document.activeElement !== run;
  write(run, reason ?? `Ask ${plural(tasks, 'task')} about ${plural(wanted, 'image')}`);
  show($('cancel'), working > 0);
  show($('progress'), working > 0);
  $('progress-bar').max = Math.max(asked, 1);
  $('progress-bar').value = asked - working;
  write($('progress-text'), `${asked - working} of ${plural(asked, 'image')}`);
}

/** A table of images by tasks, where there is more than one image. */
function drawOverview() {
  const shown = images.filter(image => image.state === 'done' || image.state === 'failed');
  const box = $('overview');
  show(box, shown.length > 1);
  if (shown.length < 2) return;
  const answers = image => (image.state === 'done' ? image.result.answers : []);
  const tasks = [...new Set(shown.flatMap(answers).map(answer => answer.task))];
  const head = element('tr', {}, ...['Image', ...tasks].map(text => element('th', { scope: 'col' }, named(text))));
  const lines = shown.map(image => {
    const go = element('button', { type: 'button', className: 'link' }, named(image.file.name));
    go.addEventListener('click', () => { image.view.scrollIntoView({ block: 'start' }); image.view.focus({ preventScroll: true }); });
    const cells = tasks.map(task => {
      const answer = answers(image).find(answer => answer.task === task);
      return element('td', {}, ...(answer ? cell(answer) : [element('span', { className: 'soft' }, 'not asked')]));
    });
    if (image.state === 'failed') cells.splice(0, tasks.length, element('td', { colSpan: Math.max(tasks.length, 1) }, 'Not answered; see below'));
    return element('tr', {}, element('th', { scope: 'row' }, go), ...cells);
  });
  box.replaceChildren(element('table', {}, element('thead', {}, head), element('tbody', {}, ...lines)));
}

function cell(answer) {
  const names = answer.findings ?? [answer.predicted];
  if (names.length === 0) return [element('span', { className: 'soft' }, 'no finding')];
  return names.flatMap((name, index) => [index ? element('br') : '', named(name), ' ', element('small', {}, percent(answer.probabilities[name]))]);
}

$('ask').addEventListener('submit', event => {
  event.preventDefault();
  if ($('run').getAttribute('aria-disabled') !== 'true') enqueue(unasked());
});
$('run').addEventListener('blur', drawRun);
$('cancel').addEventListener('click', () => {
  images.filter(image => WORKING.has(image.state)).forEach(image => image.stop.abort());
  pump();
  announce('Cancelled');
  $('run').focus();
});
$('heatmaps').addEventListener('change', drawRun);
$('clear').addEventListener('click', () => {
  [...images].forEach(remove);
  announce('All images removed');
});

// Ways in: a button, a drop, the clipboard.

$('pick').addEventListener('click', () => $('files').click());
$('files').addEventListener('change', () => {
  add([...$('files').files]);
  $('files').value = '';
});
document.addEventListener('paste', event => add([...(event.clipboardData?.files ?? [])]));

const carriesFiles = event => event.dataTransfer?.types.includes('Files');
let entered = 0;
document.addEventListener('dragenter', event => {
  if (!carriesFiles(event)) return;
  entered += 1;
  $('drop').classList.add('over');
});
document.addEventListener('dragleave', event => {
  if (carriesFiles(event) && (entered -= 1) <= 0) $('drop').classList.remove('over');
});
document.addEventListener('dragover', event => { if (carriesFiles(event)) event.preventDefault(); });
document.addEventListener('drop', async event => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  entered = 0;
  $('drop').classList.remove('over');
  location.hash = '#images';
  const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.());
  const files = [...event.dataTransfer.files];
  add(entries.some(entry => entry?.isDirectory) ? (await Promise.all(entries.map(filesIn))).flat() : files);
});

/** The files of a dropped entry; those of a folder by name, without hidden ones. */
async function filesIn(entry) {
  if (!entry) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    inside.push(...some.filter(each => !each.name.startsWith('.')));
  }
  inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map(filesIn))).flat();
}

/** Images that the server has to try, offered once. */
let offered = null;

function offerSamples() {
  offered ??= drawSamples().catch(() => show($('samples'), false));
}

async function drawSamples() {
  const { samples } = await get('v1/samples');
  const buttons = await Promise.all(samples.map(async name => {
    const blob = await (await answerOf(`v1/samples/${encodeURIComponent(name)}`)).blob();
    const picture = element('img', { src: URL.createObjectURL(blob), alt: '' });
    const button = element('button', { type: 'button', className: 'sample' }, picture, named(name.replace(/\.\w+$/, '')));
    button.addEventListener('click', () => {
      add([new File([blob], name, { type: blob.type })]);
      $('run').focus();
    });
    return button;
  }));
  $('sample-list').replaceChildren(...buttons);
  show($('samples'), buttons.length > 0);
}

// Ways out.

const NOTE = 'For research and decision support. An answer is not a diagnosis.';

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const fileName = extension => `melo-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.${extension}`;

function asJson() {
  const entries = images.filter(image => image.result || image.failure).map(image => (
    image.state === 'failed' ? { name: image.file.name, error: image.failure } : image.result));
  return JSON.stringify({ note: NOTE, saved: new Date().toISOString(), images: entries.filter(Boolean) }, null, 2);
}

/** A text cell; one that a spreadsheet would compute is kept from it by an apostrophe. */
function csvText(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

async function asCsv() {
  const lines = [['image', 'image_sha256', 'task', 'version', 'class', 'probability', 'threshold', 'reported', 'backbone', 'precision', 'error']];
  for (const image of images) {
    if (image.state === 'failed') {
      lines.push([csvText(image.file.name), ...Array(9).fill(''), csvText(image.failure)]);
      continue;
    }
    for (const answer of image.result?.answers ?? []) {
      const card = await cardOf(answer.task, answer.version).catch(() => null);
      for (const each of classesOf(answer, card)) {
        lines.push([csvText(image.file.name), image.result.digest, answer.task, answer.version, csvText(each.name), each.probability,
          each.threshold ?? '', Number(each.found), answer.backbone, answer.precision, '']);
      }
    }
  }
  return lines.map(line => `${line.join(',')}\r\n`).join('');
}

$('save-json').addEventListener('click', () => save(fileName('json'), 'application/json', asJson()));
$('save-csv').addEventListener('click', async () => save(fileName('csv'), 'text/csv', await asCsv()));

// The tasks that are served.

const served = new Map();

function drawServed() {
  const names = new Set(server.tasks.map(task => task.name));
  for (const [name, view] of served) {
    if (!names.has(name)) {
      view.remove();
      served.delete(name);
    }
  }
  for (const task of server.tasks) {
    let view = served.get(task.name);
    if (view?.dataset.version !== task.version) {
      const made = servedView(task);
      if (view) view.replaceWith(made);
      else $('served').append(made);
      served.set(task.name, view = made);
    }
    show(part(view, 'pinned'), task.pinned);
    write(part(view, 'rate'), String(task.images_per_minute));
    drawSpark(view.querySelector('polyline'), rates.get(task.name));
  }
  filterServed();
}

function servedView(task) {
  const view = stamp('task-view');
  view.dataset.version = task.version;
  view.dataset.task = task.name;
  part(view, 'name').textContent = task.name;
  part(view, 'about').textContent = `${kindText(task)}: ${task.classes.join(', ')}`;
  drawFigures(part(view, 'figures'), task);
  part(view, 'version').append(digest(task.version, `version digest of ${task.name}`), kept(task));
  cardWhenOpened(part(view, 'card'), task.name, task.version);
  return view;
}

function kept(task) {
  const others = task.versions.length - 1;
  return others > 0 ? ` and ${plural(others, 'other')}` : '';
}

function drawSpark(line, values) {
  const top = Math.max(1, ...values);
  const step = 120 / (RATES_KEPT - 1);
  const first = RATES_KEPT - values.length;
  line.setAttribute('points', values.map((value, index) => `${((first + index) * step).toFixed(1)},${(22 - 20 * value / top).toFixed(1)}`).join(' '));
}

function filterServed() {
  const wanted = $('filter').value.trim().toLowerCase();
  const all = server?.tasks ?? [];
  const seen = all.filter(task => matches(task, wanted));
  for (const task of all) show(served.get(task.name), seen.includes(task));
  const total = all.reduce((sum, task) => sum + task.images_per_minute, 0);
  write($('served-note'), all.length === 0 ? 'No task is served yet.' : `${seen.length} of ${all.length} shown. ${plural(total, 'answer')} in the last minute.`);
}

$('filter').addEventListener('input', filterServed);

// Views and themes.

function drawView() {
  const tasks = location.hash === '#tasks';
  show($('view-tasks'), tasks);
  show($('view-images'), !tasks);
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === (tasks ? '#tasks' : '#images')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $('theme').value = name;
}

$('theme').addEventListener('change', () => {
  theme($('theme').value);
  localStorage.setItem('melo-theme', $('theme').value);
});
window.addEventListener('hashchange', drawView);
// A tab that nobody sees asks nothing; images on their way still arrive.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(polling);
  else poll();
});
window.addEventListener('beforeunload', event => { if (active > 0) event.preventDefault(); });

theme(localStorage.getItem('melo-theme') || 'system');
drawView();
poll();
