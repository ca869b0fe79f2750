// The server's state, asked for again and again; what the page says of it; the key that it may want.

import { $, announce, definition, digest, duration, element, show, write } from './dom.js';
import { GONE, Refused, get, key } from './requests.js';

/** How often the server is asked for its state, ms. */
const POLL_MS = 4000;
/** Throughputs kept for the little curves. */
export const RATES_KEPT = 60;

/** What `GET /v1/tasks` last said. */
export let server = null;
let polling = null;
let goneSince = null;
export const rates = new Map();

const drawers = [];
/** What is drawn again whenever the server was asked. */
export const onState = draw => { drawers.push(draw); };

export async function poll() {
  rest();
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
    drawers.forEach(draw => draw());
  } catch (error) {
    trouble(error);
  }
  polling = setTimeout(poll, POLL_MS);
}

/** Asks no more until the next `poll`. */
export const rest = () => clearTimeout(polling);

export function trouble(error) {
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
  write($('server-text'), queued ? `Ready, ${load} waiting` : 'Ready');
  write($('task-count'), String(tasks.length));
  show($('problems'), refused.length > 0);
  const lines = refused.map(([file, reason]) => element('li', {}, element('b', {}, file), `: ${reason}`));
  $('problem-list').replaceChildren(...lines);
  const facts = {
    Backbone: [backbone.name],
    'Backbone digest': [digest(backbone.digest, 'backbone digest')],
    Precision: [backbone.precision],
    Waiting: [load, element('small', {}, ' images × tasks')],
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
