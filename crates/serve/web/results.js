// Everything that was asked: the button that asks, how far it is, and a table of images by tasks.

import { FEW } from './answers.js';
import { chosen, onChoice } from './choice.js';
import { $, announce, element, named, number, percent, plural, show, write } from './dom.js';
import { WORKING, batch, enqueue, images, mapsAlone, onImages, pump, remove, unasked } from './images.js';
import { onState, server } from './state.js';

function drawResults() {
  const count = images.length;
  show($('empty'), count === 0);
  show($('results-tools'), count > 0);
  write($('results-title'), plural(count, 'image'));
  $('save-json').disabled = $('save-csv').disabled = !images.some(image => image.result || image.failure);
  drawOverview();
  drawRun();
}

/** Whether somebody has said if all heat maps are wanted; until then they are, of a few tasks. */
let mapsSaid = false;

function drawRun() {
  const run = $('run');
  if (!mapsSaid) $('heatmaps').checked = chosen().length <= FEW;
  const asking = unasked();
  const wanted = asking.length;
  const tasks = chosen().length;
  const working = batch.filter(image => WORKING.has(image.state) && images.includes(image)).length;
  const asked = batch.filter(image => images.includes(image)).length;
  const reason = !server ? 'Waiting for the server' : images.length === 0 ? 'Add an image first' : tasks === 0 ? 'Choose a task first'
    : wanted === 0 ? (working ? 'Asking' : 'Nothing left to ask') : null;
  // Who has pressed the button should not lose the focus with it.
  run.setAttribute('aria-disabled', String(Boolean(reason)));
  run.disabled = Boolean(reason) && document.activeElement !== run;
  const question = asking.every(mapsAlone) ? `Compute heat maps for ${plural(wanted, 'image')}` : `Ask ${plural(tasks, 'task')} about ${plural(wanted, 'image')}`;
  write(run, reason ?? question);
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
  if (answer.values) {
    return Object.entries(answer.values).flatMap(([name, value], index) => [index ? element('br') : '', named(name), ' ', number(value)]);
  }
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
$('heatmaps').addEventListener('change', () => {
  mapsSaid = true;
  drawRun();
});
$('clear').addEventListener('click', () => {
  [...images].forEach(remove);
  announce('All images removed');
});
onImages(drawResults);
onChoice(drawRun);
onState(drawRun);
