// Answers for an image, and heat maps over it.

import { cardWhenOpened, drawFigures } from './cards.js';
import { element, named, part, percent, percentPair, show, stamp, write } from './dom.js';
import { cardOf } from './requests.js';

/** Longest list of classes that is shown at once. */
const CLASSES_SHOWN = 8;

/** An address of bytes, given back with the image. */
export function urlOf(image, blob) {
  const url = URL.createObjectURL(blob);
  image.urls.push(url);
  return url;
}

const pngOf = base64 => new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], { type: 'image/png' });

export async function take(image, result) {
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

export function verdict(answer) {
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
export function classesOf(answer, card) {
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

export function showHeat(image) {
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
