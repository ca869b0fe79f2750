// Answers for an image: a line each, with everything that belongs to it behind the line.

import { cardWhenOpened, drawFigures } from './cards.js';
import { element, named, number, part, percent, percentPair, pngOf, show, stamp, urlOf } from './dom.js';
import { offerHeat, toggleHeat } from './heat.js';
import { cardOf } from './requests.js';

/** Longest list of classes that is shown at once. */
const CLASSES_SHOWN = 8;
/** As many answers stand open by themselves; of more, each is a line. */
export const FEW = 4;

/** Forgets what was answered before. */
export function clear(image) {
  Object.assign(image, { result: null, heats: new Map(), heatsAsked: new Map(), heatTrouble: '' });
  part(image.view, 'answers').replaceChildren();
  offerHeat(image);
  drawFolds(image);
  drawRemarks(image);
}

/** What was seen of the image that its reader may have to hear. */
function drawRemarks(image) {
  // Which frame it was stands beside the number of answers.
  const said = text => image.result.answers[0]?.frame !== undefined && /^(frame|page|image) \d+ of \d+$/.test(text);
  const remarks = (image.result?.remarks ?? []).filter(text => !said(text));
  part(image.view, 'remarks').replaceChildren(...remarks.map(text => element('li', {}, text)));
  show(part(image.view, 'remarks'), remarks.length > 0);
}

/** Takes the answers of some tasks, behind those that are there. */
export async function take(image, { preview, ...result }) {
  if (preview) {
    for (const url of image.urls.splice(0)) URL.revokeObjectURL(url);
    part(image.view, 'preview').src = urlOf(image, pngOf(preview));
  }
  const before = image.result?.answers ?? [];
  // Tasks may render an image differently, and so have different things to say.
  const remarks = [...new Set([...(image.result?.remarks ?? []), ...(result.remarks ?? [])])];
  image.result = { ...result, ...(remarks.length ? { remarks } : {}), answers: [...before, ...result.answers] };
  const open = image.tasks.length <= FEW;
  const drawn = await Promise.all(result.answers.map(answer => answerView(image, answer, open)));
  part(image.view, 'answers').append(...drawn);
  offerHeat(image);
  drawFolds(image);
  drawRemarks(image);
}

/** Numbers by name; of a mask the shares of its classes, the background left out. */
function numbersOf(answer) {
  const mask = answer.kind === 'segmentation';
  return Object.entries(answer.values).slice(mask ? 1 : 0).map(([name, value]) => [name, mask ? percent(value) : number(value)]);
}

export function verdict(answer) {
  if (answer.values) return numbersOf(answer).map(([name, value]) => `${name} ${value}`).join(', ');
  if (answer.predicted !== undefined) return answer.predicted;
  if (answer.findings.length === 0) return 'no finding reaches its threshold';
  return `${answer.findings.join(', ')} found`;
}

/** What may be true, with the coverage that the plug-in promises. */
export function setInWords({ set }) {
  if (!set) return '';
  const promise = `with ${percent(set.coverage)} coverage`;
  if (set.classes) return set.classes.length ? `${set.classes.join(' or ')}, ${promise}` : `No class is as probable as the true ones were: do not rely on this answer (${promise})`;
  if (set.intervals) return `${Object.entries(set.intervals).map(([name, ends]) => (ends ? `${name} ${number(ends[0])} to ${number(ends[1])}` : `${name} unbounded`)).join(', ')}, ${promise}`;
  const open = Object.entries(set.findings).filter(([, said]) => said === 'either' || said === 'neither').map(([name]) => name);
  return open.length ? `Undecided ${promise}: ${open.join(', ')}` : `All findings decided ${promise}`;
}

/** Whether the image is one for the task; nothing where it is, or nobody can tell. */
export function scopeInWords({ in_scope: inScope, scope_score: score }) {
  return inScope === false ? `Not for this task: the image is unlike those that it was trained on (score ${number(score)}, limit 1). Do not rely on this answer` : '';
}

async function answerView(image, answer, open) {
  const view = stamp('answer-view');
  view.dataset.task = answer.task;
  view.open = open;
  part(view, 'task').replaceChildren(named(answer.task));
  drawVerdict(view, answer);
  show(part(view, 'scope'), answer.in_scope === false);
  part(view, 'scope').textContent = scopeInWords(answer);
  show(part(view, 'set'), answer.set !== undefined);
  part(view, 'set').textContent = setInWords(answer);
  if (answer.counted) part(view, 'verdict').append(`, ${answer.counted}`);
  part(view, 'heatmap').addEventListener('click', () => toggleHeat(image, answer));
  view.addEventListener('toggle', () => drawFolds(image));
  cardWhenOpened(part(view, 'card'), answer.task, answer.version);
  const card = await cardOf(answer.task, answer.version).catch(() => null);
  drawFigures(part(view, 'figures'), card);
  // Numbers are told by the verdict, and have no bars.
  drawClasses(view, answer.values ? [] : classesOf(answer, card));
  return view;
}

function drawVerdict(view, answer) {
  const node = part(view, 'verdict');
  if (answer.values) {
    node.dataset.found = 'true';
    node.replaceChildren(...numbersOf(answer).flatMap(([name, value], index) => [index ? ', ' : '', named(name), ' ', element('b', {}, value)]));
    return;
  }
  const names = answer.findings ?? [answer.predicted];
  node.dataset.found = String(names.length > 0);
  if (names.length === 0) node.textContent = 'No finding reaches its threshold';
  else node.replaceChildren(element('b', {}, ...names.flatMap((name, index) => [index ? ', ' : '', named(name)])));
  // Of several findings each stands with its own number below.
  part(view, 'sure').textContent = names.length === 1 ? withSpread(answer.probabilities[names[0]], answer.spread?.[names[0]]) : '';
}

/** A probability, and of an ensemble how far its members are apart. */
function withSpread(probability, spread) {
  return spread === undefined ? percent(probability) : `${percent(probability)} ± ${percent(spread)}`;
}

/** The button that opens or closes all answers of an image. */
function drawFolds(image) {
  const views = [...part(image.view, 'answers').children];
  const button = part(image.view, 'fold');
  const closed = views.some(view => !view.open);
  show(button, views.length > 1);
  button.textContent = closed ? 'Open all' : 'Close all';
  button.setAttribute('aria-label', `${button.textContent} answers for ${image.file.name}`);
  button.onclick = () => views.forEach(view => { view.open = closed; });
}

/**
 * The classes of an answer in the order of the head. That order is the card's: an object whose keys look like numbers
 * loses its own in JavaScript. Without the card, thresholds cannot be told apart, and findings still can.
 */
export function classesOf(answer, card) {
  const names = card ? card.classes : Object.keys(answer.values ?? answer.probabilities);
  return names.map((name, index) => ({
    name,
    probability: answer.probabilities?.[name],
    value: answer.values?.[name],
    spread: answer.spread?.[name],
    threshold: card && answer.thresholds ? answer.thresholds[index] : undefined,
    found: answer.findings ? answer.findings.includes(name) : answer.predicted === name,
    multi: Boolean(answer.findings),
    set: placeInSet(answer.set, name),
  }));
}

/** What the prediction set says of a class (1 in it, 0 not), a finding, or a number; nothing without a set. */
function placeInSet(set, name) {
  if (!set) return undefined;
  if (set.classes) return Number(set.classes.includes(name));
  return set.findings ? set.findings[name] : set.intervals[name]?.join(' to ');
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

function classRow({ name, probability, spread, threshold, found, multi }) {
  const row = stamp('class-row');
  const tick = row.querySelector('.tick');
  row.dataset.class = name;
  row.dataset.probability = String(probability);
  row.dataset.found = String(found);
  row.dataset.kind = multi ? 'finding' : 'class';
  part(row, 'name').append(named(name));
  part(row, 'mark').textContent = multi ? 'found' : 'predicted';
  show(part(row, 'mark'), found);
  if (spread !== undefined) row.title = `standard deviation over folds: ${percent(spread)}`;
  row.querySelector('.fill').style.width = `${100 * probability}%`;
  if (threshold === undefined) {
    part(row, 'value').textContent = withSpread(probability, spread);
    return row;
  }
  const [value, from] = percentPair(probability, threshold);
  row.dataset.threshold = String(threshold);
  part(row, 'value').textContent = spread === undefined ? value : `${value} ± ${percent(spread)}`;
  part(row, 'threshold').textContent = `${found ? '≥' : '<'} ${from}`;
  part(row, 'threshold').title = 'the threshold of this finding';
  show(tick, true);
  tick.style.left = `${100 * threshold}%`;
  return row;
}
