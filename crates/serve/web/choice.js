// The choice of tasks.

import { $, kindText, part, show, stamp, write } from './dom.js';
import { onState, server } from './state.js';

/** Tasks that are not chosen: new ones are, until somebody says otherwise. */
const unchosen = new Set();
let everyNewOne = true;
const rows = new Map();

const drawers = [noteChoice];
/** What is drawn again whenever somebody chooses. */
export const onChoice = draw => { drawers.push(draw); };
const changed = () => drawers.forEach(draw => draw());

export const matches = (task, wanted) => [task.name, ...task.classes].some(name => name.toLowerCase().includes(wanted));
export const chosen = () => (server ? server.tasks.filter(task => !unchosen.has(task.name)) : []);

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
    changed();
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
  changed();
}

$('search').addEventListener('input', searchChoice);
$('choose-all').addEventListener('click', () => choose(true));
$('choose-none').addEventListener('click', () => choose(false));
onState(drawChoice);
