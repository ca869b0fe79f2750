// Cards: what a task says of itself, and how good it is.

import { definition, digest, element, percent, plural } from './dom.js';
import { cardOf } from './requests.js';

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

export function drawFigures(node, card) {
  const known = card ? headline(card) : [];
  const measured = known.flatMap(([title, value], index) => [index ? ' · ' : '', `${title} `, element('b', {}, value)]);
  if (!card) node.textContent = 'The card could not be read; how good this task is, is not known.';
  else if (known.length === 0) node.textContent = 'The card holds no figures: how good this task is, is not known.';
  else node.replaceChildren(...measured, ...(hasTest(card) ? [] : [' · not measured on test data']));
}

const hasTest = card => Object.keys(card.metrics).some(name => name.startsWith('test_'));

export function cardWhenOpened(details, task, version) {
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
