// Images, each with its view and its state, and the work: a few requests at once, the rest waits.

import { showHeat, take, urlOf, verdict } from './answers.js';
import { chosen } from './choice.js';
import { $, announce, part, plural, show, stamp, write } from './dom.js';
import { Refused, key, predict } from './requests.js';
import { poll, server, trouble } from './state.js';

/** Requests at once: one computes while the next is sent and decoded. */
const IN_FLIGHT = 2;

/** In the order they came: `{file, view, state, asked, result, failure, seconds, stop, urls}`. */
export let images = [];

const drawers = [];
/** What is drawn again whenever an image comes, goes, or changes its state. */
export const onImages = draw => { drawers.push(draw); };
const changed = () => drawers.forEach(draw => draw());

export const WORKING = new Set(['waiting', 'sending', 'computing', 'busy', 'key']);

export function add(files) {
  if (files.length === 0) return;
  for (const file of files) {
    const image = { file, state: 'new', urls: [] };
    image.view = imageView(image);
    images.push(image);
    $('images').append(image.view);
    setState(image, 'new');
  }
  announce(`${plural(files.length, 'image')} added`);
  changed();
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

export function remove(image) {
  image.stop?.abort();
  const next = image.view.nextElementSibling || image.view.previousElementSibling;
  image.view.remove();
  image.urls.forEach(url => URL.revokeObjectURL(url));
  images = images.filter(other => other !== image);
  announce(`${image.file.name} removed`);
  (next ? part(next, 'remove') : $('pick')).focus();
  changed();
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

// The work.

export let active = 0;
export let batch = [];

/** What a run would ask; images that were asked exactly this need no second one. */
const question = () => JSON.stringify([chosen().map(task => [task.name, task.version]), $('heatmaps').checked]);
export const unasked = () => images.filter(image => !WORKING.has(image.state) && !(settled(image) && image.asked === question()));
/** Answered, or refused in a way that asking again does not change. */
const settled = image => image.state === 'done' || (image.state === 'failed' && image.refusedFor >= 400 && image.refusedFor < 500);

export function enqueue(which) {
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

export function pump() {
  for (const image of images) {
    if (image.state === 'waiting' && image.stop.signal.aborted) setState(image, 'cancelled');
    else if (image.state === 'waiting' && active < IN_FLIGHT) void work(image);
  }
  changed();
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
