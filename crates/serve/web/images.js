// Images, each with its view and its state, and the work: a few requests at once, the rest waits.

import { clear, take, verdict } from './answers.js';
import { chosen } from './choice.js';
import { $, announce, part, plural, show, stamp, urlOf, write } from './dom.js';
import { drawHeat, heatControls, heatOf } from './heat.js';
import { patiently } from './patience.js';
import { Refused, predict } from './requests.js';
import { poll, server } from './state.js';

/** Requests at once: one computes while the next is sent and decoded. */
const IN_FLIGHT = 2;
/** Tasks of a request: of many tasks the first answers come early. */
const TASKS_AT_ONCE = 8;

/** In the order they came: `{file, view, state, frame, asked, result, heats, failure, seconds, stop, gone, urls}`. */
export let images = [];

const drawers = [];
/** What is drawn again whenever an image comes, goes, or changes its state. */
export const onImages = draw => { drawers.push(draw); };
const changed = () => drawers.forEach(draw => draw());

export const WORKING = new Set(['waiting', 'sending', 'computing', 'mapping', 'busy', 'key']);

export function add(files) {
  if (files.length === 0) return;
  for (const file of files) {
    const image = { file, state: 'new', urls: [], gone: new AbortController() };
    imageView(image);
    heatControls(image);
    clear(image);
    images.push(image);
    $('images').append(image.view);
    setState(image, 'new');
  }
  announce(`${plural(files.length, 'image')} added`);
  changed();
}

function imageView(image) {
  const view = image.view = stamp('image-view');
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
  part(view, 'frame').addEventListener('change', () => chooseFrame(image));
  part(view, 'enlarge').addEventListener('click', event => {
    const large = view.classList.toggle('large');
    event.target.setAttribute('aria-pressed', String(large));
    event.target.textContent = large ? 'Smaller' : 'Enlarge';
  });
}

/** Asks again, about another frame. */
function chooseFrame(image) {
  const box = part(image.view, 'frame');
  const wanted = Math.round(Number(box.value));
  if (!(wanted >= 1 && wanted <= image.result?.frames)) {
    box.value = String(frameOf(image));
    return;
  }
  image.frame = wanted;
  enqueue([image]);
}

const frameOf = image => image.result.answers[0].frame;

/** Which frame was looked at; several, where the tasks' cards ask for different ones. */
function frameText({ frames, answers }) {
  if (answers[0].frame === undefined) return '';
  const looked = [...new Set(answers.map(answer => answer.frame))];
  return `, ${looked.length > 1 ? 'frames' : 'frame'} ${looked.join(' and ')} of ${frames}`;
}

export function remove(image) {
  image.stop?.abort();
  image.gone.abort();
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
  computing: image => (image.result ? `${image.result.answers.length} of ${plural(image.asking, 'answer')}` : `Computing ${plural(image.asking, 'task')}`),
  mapping: image => `${plural(image.asking, 'answer')}, ${image.heats.size} of ${plural(image.asking, 'heat map')}`,
  busy: image => `The server is busy. Trying again in ${image.wait} s`,
  key: () => 'Waiting for an API key',
  done: image => `${plural(image.result.answers.length, 'answer')} in ${image.seconds.toFixed(1)} s${frameText(image.result)}`,
  failed: image => (image.result ? `${image.result.answers.length} of ${plural(image.asking, 'answer')}` : 'Not answered'),
  cancelled: image => (image.result ? `Cancelled after ${image.result.answers.length} of ${plural(image.asking, 'answer')}` : 'Cancelled'),
};

function setState(image, state) {
  image.state = state;
  const { view } = image;
  const working = WORKING.has(state);
  view.dataset.state = state;
  view.setAttribute('aria-busy', String(working));
  write(part(view, 'status'), STATUS[state](image));
  show(part(view, 'stop'), working);
  show(part(view, 'again'), state === 'cancelled' || (state === 'failed' && !settled(image)));
  show(part(view, 'sent'), state === 'sending');
  part(view, 'sent').value = 100 * (image.sent || 0);
  const failure = state === 'failed' || state === 'done' ? image.failure || '' : '';
  show(part(view, 'failure'), failure !== '');
  write(part(view, 'failure'), failure);
  const frames = image.result?.answers[0]?.frame === undefined ? 0 : image.result.frames;
  show(part(view, 'frame-field'), Boolean(frames));
  part(view, 'frame').disabled = working;
  if (frames) {
    part(view, 'frame').max = String(frames);
    part(view, 'frame').value = String(frameOf(image));
    write(part(view, 'frames'), `of ${frames}`);
  }
}

// The work.

export let active = 0;
export let batch = [];

/** What a run would ask of an image; one that was asked exactly this needs no second one. */
const question = image => JSON.stringify([chosen().map(task => [task.name, task.version]), image.frame ?? null]);
/** Answered, or refused in a way that asking again does not change. */
const settled = image => image.state === 'done' || (image.state === 'failed' && image.refusedFor >= 400 && image.refusedFor < 500);
const answeredSo = image => settled(image) && image.asked === question(image);
const lacksMaps = image => $('heatmaps').checked && image.state === 'done' && image.heats.size < image.result.answers.length;
export const unasked = () => images.filter(image => !WORKING.has(image.state) && (!answeredSo(image) || (lacksMaps(image) && !image.failure)));
/** Whether nothing but heat maps is missing. */
export const mapsAlone = image => answeredSo(image) && image.state === 'done';

export function enqueue(which) {
  if (!server || chosen().length === 0) return;
  for (const image of which) {
    image.maps = $('heatmaps').checked;
    image.failure = '';
    image.answered = mapsAlone(image);
    if (!image.answered) Object.assign(image, { asked: question(image), asking: chosen().length, tasks: chosen().map(task => task.name) });
    image.stop = new AbortController();
    image.sent = 0;
    setState(image, 'waiting');
  }
  batch = [...batch.filter(image => WORKING.has(image.state) && !which.includes(image)), ...which];
  pump();
}

export function pump() {
  for (const image of images) {
    if (image.state === 'waiting' && image.stop.signal.aborted) setState(image, image.answered ? 'done' : 'cancelled');
    else if (image.state === 'waiting' && active < IN_FLIGHT) void work(image);
  }
  changed();
}

async function work(image) {
  const { signal } = image.stop;
  active += 1;
  try {
    if (!image.answered) await answer(image, signal);
    if (image.maps) await mapAll(image, signal);
    setState(image, 'done');
  } catch (error) {
    if (signal.aborted) {
      setState(image, image.answered ? 'done' : 'cancelled');
    } else {
      image.failure = image.answered ? `Not all heat maps are there: ${error.message}` : error.message;
      image.refusedFor = error.status;
      setState(image, image.answered ? 'done' : 'failed');
      announce(`${image.file.name}: ${image.failure}`);
      if (!(error instanceof Refused)) throw error;
    }
  } finally {
    active -= 1;
    pump();
    if (active === 0) poll();
  }
}

/** Answers first, a few tasks at a time. */
async function answer(image, signal) {
  const started = performance.now();
  clear(image);
  image.sent = 0;
  setState(image, 'sending');
  const onSent = share => {
    image.sent = share;
    setState(image, share < 1 && !image.result ? 'sending' : 'computing');
  };
  for (let first = 0; first < image.tasks.length; first += TASKS_AT_ONCE) {
    const some = image.tasks.slice(first, first + TASKS_AT_ONCE);
    const ask = () => predict(image.file, some, { preview: first === 0, frame: image.frame }, signal, onSent);
    await take(image, await patiently(ask, signal, waits(image)));
    setState(image, 'computing');
    changed();
  }
  image.seconds = (performance.now() - started) / 1000;
  image.answered = true;
  announce(`${image.file.name}: ${image.result.answers.map(answer => `${answer.task}: ${verdict(answer)}`).join('. ')}`);
}

/** Then the heat maps, one by one. */
async function mapAll(image, signal) {
  for (const answer of image.result.answers) {
    setState(image, 'mapping');
    changed();
    await heatOf(image, answer, signal);
    drawHeat(image);
  }
}

/** Says what is waited for. */
function waits(image) {
  return {
    onBusy: (left, seconds) => {
      if (left === seconds) announce(`The server is busy. ${image.file.name} is tried again in ${seconds} seconds.`);
      image.wait = left;
      setState(image, 'busy');
    },
    onKey: () => setState(image, 'key'),
  };
}
