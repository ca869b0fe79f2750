// Files in, by a button, a drop, the clipboard, or from the server's samples; answers out.

import { classesOf } from './answers.js';
import { $, element, named, show } from './dom.js';
import { add, images } from './images.js';
import { answerOf, cardOf, get } from './requests.js';
import { onState } from './state.js';

$('pick').addEventListener('click', () => $('files').click());
$('files').addEventListener('change', () => {
  add([...$('files').files]);
  $('files').value = '';
});
document.addEventListener('paste', event => add([...(event.clipboardData?.files ?? [])]));

const carriesFiles = event => event.dataTransfer?.types.includes('Files');
let entered = 0;
document.addEventListener('dragenter', event => {
  if (!carriesFiles(event)) return;
  entered += 1;
  $('drop').classList.add('over');
});
document.addEventListener('dragleave', event => {
  if (carriesFiles(event) && (entered -= 1) <= 0) $('drop').classList.remove('over');
});
document.addEventListener('dragover', event => { if (carriesFiles(event)) event.preventDefault(); });
document.addEventListener('drop', async event => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  entered = 0;
  $('drop').classList.remove('over');
  location.hash = '#images';
  const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.());
  const files = [...event.dataTransfer.files];
  add(entries.some(entry => entry?.isDirectory) ? (await Promise.all(entries.map(filesIn))).flat() : files);
});

/** The files of a dropped entry; those of a folder by name, without hidden ones. */
async function filesIn(entry) {
  if (!entry) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    inside.push(...some.filter(each => !each.name.startsWith('.')));
  }
  inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map(filesIn))).flat();
}

/** Images that the server has to try, offered once. */
let offered = null;

function offerSamples() {
  offered ??= drawSamples().catch(() => show($('samples'), false));
}

async function drawSamples() {
  const { samples } = await get('v1/samples');
  const buttons = await Promise.all(samples.map(async name => {
    const blob = await (await answerOf(`v1/samples/${encodeURIComponent(name)}`)).blob();
    const picture = element('img', { src: URL.createObjectURL(blob), alt: '' });
    const button = element('button', { type: 'button', className: 'sample' }, picture, named(name.replace(/\.\w+$/, '')));
    button.addEventListener('click', () => {
      add([new File([blob], name, { type: blob.type })]);
      $('run').focus();
    });
    return button;
  }));
  $('sample-list').replaceChildren(...buttons);
  show($('samples'), buttons.length > 0);
}

onState(offerSamples);

// Ways out.

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const fileName = extension => `melo-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.${extension}`;

function asJson() {
  const entries = images.filter(image => image.result || image.failure).map(image => (
    image.state === 'failed' ? { ...image.result, name: image.file.name, error: image.failure } : image.result));
  return JSON.stringify({ note: $('intended-use').textContent, saved: new Date().toISOString(), images: entries.filter(Boolean) }, null, 2);
}

/** A text cell; one that a spreadsheet would compute is kept from it by an apostrophe. */
function csvText(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

async function asCsv() {
  const lines = [['image', 'image_sha256', 'task', 'version', 'class', 'probability', 'threshold', 'reported', 'backbone', 'precision', 'error', 'frame', 'value', 'set', 'in_scope', 'scope_score']];
  for (const image of images) {
    if (image.state === 'failed') {
      lines.push([csvText(image.file.name), ...Array(9).fill(''), csvText(image.failure), '', '', '', '', '']);
    }
    for (const answer of image.result?.answers ?? []) {
      const card = await cardOf(answer.task, answer.version).catch(() => null);
      for (const each of classesOf(answer, card)) {
        lines.push([csvText(image.file.name), image.result.digest, answer.task, answer.version, csvText(each.name), each.probability ?? '',
          each.threshold ?? '', answer.values ? '' : Number(each.found), answer.backbone, answer.precision, '', answer.frame ?? '', each.value ?? '', each.set ?? '',
          answer.in_scope === undefined ? '' : Number(answer.in_scope), answer.scope_score ?? '']);
      }
    }
  }
  return lines.map(line => `${line.join(',')}\r\n`).join('');
}

$('save-json').addEventListener('click', () => save(fileName('json'), 'application/json', asJson()));
$('save-csv').addEventListener('click', async () => save(fileName('csv'), 'text/csv', await asCsv()));
