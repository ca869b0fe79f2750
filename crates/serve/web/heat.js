// Heat maps: asked for one by one, after the answers, and laid over the image.

import { announce, part, pngOf, show, urlOf, write } from './dom.js';
import { patiently } from './patience.js';
import { predict } from './requests.js';

const answersOf = image => image.result?.answers ?? [];
const chosenTask = image => part(image.view, 'which').value;

/** Every answer's heat map can be chosen under the image, whether it is there yet or not. */
export function offerHeat(image) {
  const which = part(image.view, 'which');
  const before = which.value;
  const tasks = answersOf(image).map(answer => answer.task);
  which.replaceChildren(new Option('none', ''), ...tasks.map(task => new Option(task, task)));
  which.value = tasks.includes(before) ? before : '';
  show(part(image.view, 'heat-field'), tasks.length > 0);
  drawHeat(image);
}

/** An answer's own button: shows the map and brings it into view, or hides it. */
export function toggleHeat(image, answer) {
  const which = part(image.view, 'which');
  which.value = which.value === answer.task ? '' : answer.task;
  image.cameFrom = which.value;
  if (which.value) bringIntoView(part(image.view, 'stage'));
  void showHeat(image);
}

/** Shows the heat map that is chosen; asks for it first where it is not there. */
async function showHeat(image) {
  const task = chosenTask(image);
  const answer = answersOf(image).find(answer => answer.task === task);
  image.heatTrouble = '';
  drawHeat(image);
  if (!answer || image.heats.has(task)) return;
  try {
    await heatOf(image, answer, image.gone.signal);
    announce(`The ${mapOf(image, task)} of ${task} is shown`);
  } catch (error) {
    if (chosenTask(image) === task) image.heatTrouble = `No ${mapOf(image, task)}: ${error.message}`;
  }
  drawHeat(image);
}

/** What lies over an image for a task. */
const mapOf = (image, task) => (answersOf(image).find(answer => answer.task === task)?.kind === 'segmentation' ? 'mask' : 'heat map');

/** Asks for the heat map or the mask of an answer, once: of the version that gave it, on the frame that it looked at. */
export function heatOf(image, answer, signal) {
  const { heats, heatsAsked } = image;
  if (heats.has(answer.task)) return Promise.resolve();
  if (!heatsAsked.has(answer.task)) {
    const mask = answer.kind === 'segmentation';
    const what = { [mask ? 'masks' : 'heatmap']: true, frame: image.frame };
    const ask = () => predict(image.file, [`${answer.task}@${answer.version}`], what, signal, () => {});
    const asked = patiently(ask, signal).then(result => {
      if (mask) {
        heats.set(answer.task, { url: urlOf(image, pngOf(result.answers[0].mask.overlay)), mask });
        return;
      }
      const { png, ...heatmap } = result.answers[0].heatmap;
      answer.heatmap = heatmap;
      heats.set(answer.task, { url: urlOf(image, pngOf(png)), of: heatmap.class });
    });
    heatsAsked.set(answer.task, asked.finally(() => heatsAsked.delete(answer.task)));
  }
  return heatsAsked.get(answer.task);
}

export function drawHeat(image) {
  const { view } = image;
  const task = chosenTask(image);
  const found = image.heats.get(task);
  const waiting = Boolean(task) && !found && !image.heatTrouble;
  const heat = part(view, 'heat');
  const opacity = Number(part(view, 'opacity').value);
  show(heat, Boolean(found));
  show(part(view, 'opacity-field'), Boolean(found));
  show(part(view, 'legend'), Boolean(found) && !found.mask);
  if (found) {
    heat.src = found.url;
    heat.alt = found.mask ? `Mask of ${task}` : `Heat map of ${task}: where ${found.of} was seen`;
  }
  heat.style.opacity = String(opacity / 100);
  write(part(view, 'opacity-value'), `${opacity}\u202f%`);
  show(part(view, 'heat-note'), Boolean(task));
  write(part(view, 'heat-note'), found ? (found.mask ? 'Each class in its colour, with its outline' : `Where ${found.of} was seen`) : waiting ? `Computing the ${mapOf(image, task)} of ${task}` : image.heatTrouble || '');
  part(view, 'stage').setAttribute('aria-busy', String(waiting));
  show(part(view, 'back'), Boolean(task) && image.cameFrom === task);
  write(part(view, 'back'), `Back to ${task}`);
  for (const answer of view.querySelectorAll('.answer')) {
    const on = answer.dataset.task === task;
    const button = part(answer, 'heatmap');
    button.dataset.on = String(on);
    write(button, `${on ? 'Hide' : 'Show'} ${mapOf(image, answer.dataset.task)}`);
    button.setAttribute('aria-label', `${button.textContent} of ${answer.dataset.task}`);
  }
}

/** Scrolls only where some of it cannot be seen. */
function bringIntoView(node) {
  const { top, bottom } = node.getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) node.scrollIntoView({ block: 'start' });
}

/** The controls under an image. */
export function heatControls(image) {
  const { view } = image;
  part(view, 'which').addEventListener('change', () => {
    image.cameFrom = '';
    void showHeat(image);
  });
  part(view, 'opacity').addEventListener('input', () => drawHeat(image));
  part(view, 'back').addEventListener('click', () => {
    const answer = [...view.querySelectorAll('.answer')].find(answer => answer.dataset.task === chosenTask(image));
    answer.open = true;
    part(answer, 'heatmap').scrollIntoView({ block: 'center' });
    part(answer, 'heatmap').focus({ preventScroll: true });
  });
}
