// The tasks that are served.

import { cardWhenOpened, drawFigures } from './cards.js';
import { matches } from './choice.js';
import { $, digest, kindText, number, part, plural, show, stamp, write } from './dom.js';
import { RATES_KEPT, onState, rates, server } from './state.js';

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
    const outside = task.drift.filter(row => row.outside);
    show(part(view, 'drift'), outside.length > 0);
    write(part(view, 'drift'), outside.map(drifted).join(' '));
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

/** A figure that is outside its limits, in words. */
function drifted({ figure, now, reference, reference_images: images }) {
  return `Drift: ${figure} is ${number(now)}, it was ${number(reference)} of ${plural(images, 'image')}.`;
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
onState(drawServed);
