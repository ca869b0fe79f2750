// Cards: what a task says of itself, and how good it is.

import { definition, digest, element, percent, plural } from './dom.js';
import { cardOf } from './requests.js';

const FIGURES = { kappa_quadratic: 'quadratic weighted kappa', auc_macro: 'macro AUC', acc: 'accuracy' };
/** Those of a card's table that are not named by their own words. */
const OTHER_FIGURES = { balanced_acc: 'balanced accuracy', f1_macro: 'macro F1', kappa: 'quadratic weighted kappa', kappa_linear: 'linear weighted kappa', mae: 'mean absolute error', r2: 'R²' };
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
  if (card.kind === 'regression') {
    const measured = card.classes.filter(name => card.metrics[`test_mae/${name}`] !== undefined);
    if (measured.length > 0) return measured.map((name, index) => [`${index ? '' : 'Test '}mean absolute error of ${name}`, figure(card, `test_mae/${name}`)]);
    return card.metrics.val_mae === undefined ? [] : [['Validation mean absolute error', figure(card, 'val_mae')]];
  }
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
  else node.replaceChildren(...measured, ...(hasTest(card) ? [] : [' · not measured on test data']), ...neverSaid(card));
}

/** Classes that a task did not answer once where it was measured: no case of them was seen, and no other one taken for them. */
function neverSaid(card) {
  const split = hasTest(card) ? 'test' : 'val';
  const of = (name, one) => card.metrics[`${split}_${name}/${one}`];
  const never = card.classes.filter(one => of('sensitivity', one) === 0 && of('specificity', one) === 1);
  if (never.length === 0) return [];
  return [element('strong', { className: 'never' }, `It never answered ${never.join(', ')} on ${split === 'test' ? 'test' : 'validation'} data.`)];
}

const hasTest = card => Object.keys(card.metrics).some(name => name.startsWith('test_'));

export function cardWhenOpened(details, task, version) {
  const body = details.querySelector('.card');
  details.addEventListener('toggle', async () => {
    if (!details.open || body.dataset.drawn) return;
    body.textContent = 'Asking the server';
    try {
      const under = Number(details.parentElement.closest('.answer, .task').querySelector('h3, h4').tagName.at(1));
      body.replaceChildren(...cardView(await cardOf(task, version), version, `h${under + 1}`));
      body.dataset.drawn = 'true';
    } catch (error) {
      body.textContent = error.message;
    }
  });
}

function cardView(card, version, heading) {
  const title = text => element(heading, {}, text);
  return [
    title('How good it is'), figureTable(card),
    title('Classes'), classTable(card),
    title('How it is used'), facts({
      Input: [inputText(card.preprocess)],
      Normalisation: [`mean ${card.preprocess.mean.map(short).join(', ')}; deviation ${card.preprocess.std.map(short).join(', ')}`],
      ...(card.preprocess.rendering ? { Rendering: [plain(card.preprocess.rendering)] } : {}),
      Calibration: [calibrationText(card)],
      Adapter: [adapterText(card)],
      Backbone: [card.backbone.name],
      'Backbone digest': [digest(card.backbone.digest, 'backbone digest')],
      'Version digest': [digest(version, 'version digest')],
    }),
    title('Where it comes from'), facts({
      ...(card.signed_by ? { 'Signed by': [`${card.signed_by.name || 'key'} (${card.signed_by.key}): ${card.signed_by.comment}`] } : {}),
      Software: [card.provenance.software || 'unknown'],
      ...(card.provenance.data ? { Data: [card.provenance.data] } : {}),
      ...(card.provenance.date ? { 'Trained on': [card.provenance.date] } : {}),
      'Training images': [String(card.provenance.train_images)],
      Seed: [String(card.provenance.seed)],
      Precision: [card.provenance.precision],
      'Data digest': card.provenance.data_digest ? [digest(card.provenance.data_digest, 'data digest')] : ['unknown'],
      ...(card.provenance.split_digest ? { 'Split digest': [digest(card.provenance.split_digest, 'split digest')] } : {}),
    }),
    ...settingsView(card.provenance.settings, title),
  ];
}

/** The training's own first; what else computes the plug-in takes the one of its engine and precision. */
function calibrationText(card) {
  const multi = card.kind === 'multi_label';
  const later = (card.calibrations ?? []).map(({ temperature, thresholds, self_test: { engine, precision } }) => {
    const where = engine ? `${precision} on ${engine}` : precision;
    const from = multi ? `, reported from ${thresholds.map(percent).join(', ')}` : '';
    return `; in ${where} temperature ${short(temperature)}${from}`;
  });
  return [`temperature ${short(card.temperature)}`, ...later].join('');
}

/** What the training was told, a setting each. */
function settingsView(settings, title) {
  const told = Object.entries(settings instanceof Object ? settings : {}).filter(([, value]) => !isEmpty(value));
  if (told.length === 0) return [];
  return [title('How it was trained'), facts(Object.fromEntries(told.map(([name, value]) => [words(name), [plain(value)]])), 'facts settled')];
}

const facts = (entries, className = 'facts') => element('dl', { className }, ...Object.entries(entries).map(([name, values]) => definition(name, ...values)));
const short = value => String(Number(value.toFixed(4)));
const FITTED = { center: 'shorter side resized, the centre kept', squash: 'both sides resized, whatever the shape', border: 'longer side resized, the rest filled' };
const inputText = p => `${p.size} × ${p.size} pixels (${FITTED[p.crop_mode] ?? p.crop_mode}), ${p.interpolation}, ${percent(p.crop_pct, 0)} of the side`;
const words = name => name.replaceAll('_', ' ').replace(/^./, letter => letter.toUpperCase());
const isEmpty = value => typeof value === 'object' && value !== null && Object.keys(value).length === 0;

function adapterText({ lora, bottleneck }) {
  const parts = [];
  if (lora?.rank) parts.push(`rank ${lora.rank}, alpha ${lora.alpha} on ${lora.targets.join(', ')} of ${plural(lora.blocks.length, 'block')}`);
  if (bottleneck?.width) parts.push(`bottlenecks of width ${bottleneck.width} in ${plural(bottleneck.blocks.length, 'block')}`);
  return parts.join('; ') || 'none: a head alone';
}

/** Any value as words: `rank 4, alpha 4, targets q, v`. */
function plain(value) {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number') return String(Number(value.toPrecision(6)));
  if (value === null || typeof value !== 'object') return String(value ?? 'none');
  if (Array.isArray(value)) return value.map(plain).join(', ');
  const told = Object.entries(value).filter(([, inner]) => !isEmpty(inner)).map(([name, inner]) => {
    const text = plain(inner);
    return `${name.replaceAll('_', ' ')} ${typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? `(${text})` : text}`;
  });
  return told.join('; ');
}

function table(head, lines) {
  const row = (tag, cells) => element('tr', {}, ...cells.map((cell, index) => (index && tag === 'td' ? element('td', {}, cell) : element('th', { scope: tag === 'th' ? 'col' : 'row' }, cell))));
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
    const known = SPLITS[split] ? `${SPLITS[split]} ${{ ...FIGURES, ...OTHER_FIGURES }[rest.join('_')] ?? rest.join(' ')}` : name.replaceAll('_', ' ');
    return [known, figure(card, name, 3)];
  });
  const note = element('p', { className: 'soft' }, 'AUC: 0.5 is chance, 1 is without fault. Macro: the mean over the classes.');
  return element('div', {}, table(['Figure', 'Value [95\u202f% interval]'], lines), note);
}

function classTable(card) {
  const columns = ofClass.filter(name => card.classes.some(one => card.metrics[`test_${name}/${one}`] !== undefined));
  const names = { auc: 'Test AUC', sensitivity: 'Sensitivity', specificity: 'Specificity' };
  const multi = card.kind === 'multi_label';
  // Images that have it and are called so, that are called so alone, that have it alone, and the rest.
  const cases = card.test?.counts.map(([called, , missed]) => called + missed);
  if (card.kind === 'regression') return numberTable(card);
  const lines = card.classes.map((one, index) => [
    one,
    multi ? `from ${percent(card.thresholds[index])}` : { ordinal: 'the median grade' }[card.kind] ?? 'the most probable',
    ...(cases ? [String(cases[index])] : []),
    ...columns.map(name => figure(card, `test_${name}/${one}`, 2) ?? 'unknown'),
  ]);
  return table(['Class', 'Reported', ...(cases ? ['Test images'] : []), ...columns.map(name => names[name])], lines);
}

function numberTable(card) {
  const columns = { mae: 'Mean absolute error', baseline_mae: 'Of their mean', bias: 'Bias', r2: 'R²' };
  const lines = card.classes.map(one => [one, ...Object.keys(columns).map(name => figure(card, `test_${name}/${one}`, 2) ?? 'unknown')]);
  return table(['Number', ...Object.values(columns)], lines);
}
