#!/usr/bin/env node
// Drives the page of `melo serve` in a headless Chromium, as people do, and looks at what it shows.
//
//     npm ci --prefix tools/page
//     node tools/page/check.mjs target/debug/melo FOLDER [--web crates/serve/web]
//
// Needs Debian's `chromium` (or CHROMIUM=...). Writes screenshots into FOLDER, prints a line a check, exits with 1 if one
// fails. With --web the page's files come from there and not from the binary, which spares a build.

import { chromium } from 'playwright-core';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { dicom, png } from './material.mjs';
import { crowd, furnish, HOSTILE_CLASSES, start, THRESHOLDS } from './server.mjs';
import { axe, contrasts, longNumbers, nameless, overflow } from './looks.mjs';

const [melo, out, option, web] = process.argv.slice(2);
if (!melo || !out || (option && option !== '--web')) {
  console.error('usage: check.mjs MELO FOLDER [--web crates/serve/web]');
  process.exit(2);
}

const FILES_OF_PAGE = Object.fromEntries((web ? fs.readdirSync(web) : []).map(name => [name === 'index.html' ? '/' : `/${name}`, name]));
const INTENDED_USE = 'Research software. It is no medical device and must not be used for diagnosis.';
const HOSTILE_FILE = '<img src=x onerror=window.pwned=1>.png';
const FILES = {
  film: { name: 'film.png', mimeType: 'image/png', buffer: png(200, 240) },
  scan: { name: 'IM000001', mimeType: '', buffer: dicom(120, 96) },
  hostile: { name: HOSTILE_FILE, mimeType: 'image/png', buffer: png(64, 64, 2) },
  text: { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('no image at all') },
};
const LOOP = { name: 'loop.dcm', mimeType: '', buffer: dicom(120, 96, 3) };
const PDF = { name: 'letter.pdf', mimeType: 'application/pdf', buffer: Buffer.from('%PDF-1.7\n%âãÏÓ\n', 'latin1') };
const ALL = Object.values(FILES);
const SETTLED = '[data-state=done], [data-state=failed], [data-state=cancelled]';

fs.mkdirSync(out, { recursive: true });
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'melo-page-'));
const settings = await furnish(melo, folder);
let server = await start(melo, { ...settings, listen: '127.0.0.1:0' });
const base = server.address;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

let failed = 0;
/** One check in a tab of its own; what the browser complains about fails it too. */
async function check(name, test, { allow = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', error => complaints.push(error.stack));
  page.on('console', message => {
    const text = message.text();
    if (message.type() === 'error' && !allow.some(known => text.includes(known))) complaints.push(text);
  });
  page.on('request', request => {
    if (!request.url().startsWith(base) && !/^(blob|data):/.test(request.url())) complaints.push(`asked ${request.url()}`);
  });
  if (web) await page.route(url => url.origin === base && FILES_OF_PAGE[url.pathname], fromDisk);
  page.setDefaultTimeout(15000);
  try {
    await test(page, context);
    assert.deepEqual(complaints, []);
    assert.equal(await page.evaluate(() => window.pwned), undefined, 'a name was run');
    console.log(`PASS ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}\n${error.stack.replace(/^/gm, '    ')}`);
    await page.screenshot({ path: path.join(out, `failed-${failed}.png`), fullPage: true }).catch(() => {});
  }
  await context.close();
}

/** A file of the page, from --web, with the headers that the server would give it. */
async function fromDisk(route) {
  const name = FILES_OF_PAGE[new URL(route.request().url()).pathname];
  const response = await route.fetch();
  await route.fulfill({ response, body: fs.readFileSync(path.join(web, name)) });
}

/** Another server answers in place of the usual one. */
async function instead(page, other) {
  await page.route(url => url.origin === base && !FILES_OF_PAGE[url.pathname], async route => {
    const url = route.request().url().replace(base, other.address);
    // To the other server the page is its own.
    const headers = route.request().headers();
    if (headers.origin === base) headers.origin = other.address;
    // A question that is on its way when the other server is stopped stays open until the tab is closed.
    const response = await route.fetch({ url, headers }).catch(() => null);
    if (response) await route.fulfill({ response });
  });
}

async function opened(page, hash = '') {
  await page.goto(`${base}/${hash}`);
  await page.waitForSelector('#task-choice input', { state: 'attached' });
}

const image = (page, name) => page.locator('.image').filter({ has: page.getByRole('heading', { name, exact: true }) });
const answer = (page, name, task) => image(page, name).locator(`.answer[data-task="${task}"]`);
/** An answer, opened where it is a line. */
async function openedAnswer(page, name, task) {
  const view = answer(page, name, task);
  if (await view.getAttribute('open') === null) await view.locator('> summary').click();
  return view;
}
const settled = (page, count) => page.waitForFunction(
  ([selector, count]) => document.querySelectorAll(selector).length === count, [SETTLED, count]);

async function ask(page, files) {
  await page.setInputFiles('#files', files);
  await page.click('#run');
  await settled(page, files.length);
}

async function api(file, tasks = 'all') {
  const form = new FormData();
  form.append('tasks', tasks);
  form.append('image', new Blob([file.buffer]), file.name);
  const response = await fetch(`${base}/v1/predict`, { method: 'POST', body: form });
  return (await response.json()).images[0];
}

const tasksNow = async () => (await fetch(`${base}/v1/tasks`)).json();
/** What a percentage on the page stands for. */
const shown = text => Number.parseFloat(text.replace(/[<>≥]/g, '').trim());
/** That a percentage stands for a probability: rounded, or, where rounding would claim certainty, within half a step of it. */
function standsFor(text, p) {
  const bound = shown(text);
  if (text.startsWith('<')) assert.ok(p > 0 && 100 * p < bound / 2, `${text} for ${p}`);
  else if (text.startsWith('>')) assert.ok(p < 1 && 100 * (1 - p) < (100 - bound) / 2, `${text} for ${p}`);
  else assert.ok(Math.abs(bound - 100 * p) <= 0.0501, `${text} for ${p}`);
}

await check('the page says what it is, which tasks there are, and how to begin', async page => {
  await opened(page);
  const { tasks } = await tasksNow();
  assert.equal(tasks.length, 5);
  assert.deepEqual(await page.locator('#task-choice [data-part=name]').allTextContents(), tasks.map(task => task.name));
  assert.equal(await page.textContent('#server-text'), 'Ready');
  assert.equal(await page.textContent('.purpose'), INTENDED_USE);
  assert.equal(await page.textContent('#run'), 'Add an image first');
  assert.ok(await page.isVisible('#empty') && await page.isDisabled('#run'));
});

await check('numbers, classes, thresholds and findings are those of the API', async page => {
  await opened(page);
  await ask(page, [FILES.film, FILES.scan]);
  const { tasks } = await tasksNow();
  for (const file of [FILES.film, FILES.scan]) {
    const { answers } = await api(file);
    assert.equal(answers.length, 5);
    for (const expected of answers) {
      const view = answer(page, file.name, expected.task);
      const task = tasks.find(task => task.name === expected.task);
      const rows = await view.locator('.classes li').evaluateAll(rows => rows.map(row => ({
        ...row.dataset, text: row.querySelector('.class [data-part=name]').textContent,
        value: row.querySelector('[data-part=value]').textContent, threshold: row.querySelector('[data-part=threshold]').textContent,
        mark: row.querySelector('.mark').hidden ? '' : row.querySelector('.mark').textContent,
        fill: row.querySelector('.fill').getBoundingClientRect().width / row.querySelector('.bar').getBoundingClientRect().width,
        tick: row.querySelector('.tick').style.left,
      })));
      assert.deepEqual(rows.map(row => row.text), task.classes, 'in the order of the head');
      for (const [index, row] of rows.entries()) {
        const p = expected.probabilities[row.text];
        const found = expected.findings ? expected.findings.includes(row.text) : expected.predicted === row.text;
        assert.equal(Number(row.probability), p);
        standsFor(row.value, p);
        assert.ok(Math.abs(row.fill - p) < 0.02, `a bar of ${row.fill} for ${p}`);
        assert.equal(row.mark, found ? (expected.findings ? 'found' : 'predicted') : '');
        if (!expected.findings) continue;
        assert.equal(Math.fround(Number(row.dataset?.threshold ?? shown(row.threshold) / 100)), Math.fround(THRESHOLDS[index]));
        assert.equal(row.threshold.startsWith('≥'), p >= expected.thresholds[index]);
        assert.ok(Math.abs(Number.parseFloat(row.tick) - 100 * THRESHOLDS[index]) < 0.001);
      }
      const sure = await view.locator('.sure').textContent();
      if (expected.predicted) standsFor(sure, expected.probabilities[expected.predicted]);
      const verdict = await view.locator('.verdict').textContent();
      assert.equal(verdict, expected.predicted ?? (expected.findings.join(', ') || 'No finding reaches its threshold'));
    }
  }
  const figures = await answer(page, 'film.png', 'findings').locator('.figures').textContent();
  assert.match(figures, /Test macro AUC 0\.91 \[0\.88, 0\.94\] · accuracy 0\.85 \[0\.81, 0\.89\]It never/);
});

await check('a file that is refused is named, beside the answers of the others', async page => {
  await opened(page);
  await ask(page, ALL);
  assert.equal(await page.locator('[data-state=done]').count(), 3);
  assert.match(await image(page, 'notes.txt').locator('.failure').textContent(), /notes\.txt: not an image: this is text\. PNG, JPEG/);
  assert.ok(await image(page, 'notes.txt').getByRole('button', { name: 'Try again' }).isHidden(), 'it would be refused again');
  assert.equal(await page.locator('#overview tbody tr').count(), 4);
  assert.equal(await page.textContent('#run'), 'Nothing left to ask');
  await page.screenshot({ path: path.join(out, 'answers.png'), fullPage: true });
}, { allow: ['422'] });

await check('hostile names of files, classes and plug-ins are text', async page => {
  await opened(page);
  await ask(page, [FILES.hostile, FILES.film]);
  assert.equal(await image(page, HOSTILE_FILE).count(), 1);
  await page.locator('summary').first().click();
  await page.goto(`${base}/#tasks`);
  await page.waitForSelector('#problem-list li');
  assert.match(await page.textContent('#problem-list'), /broken<b>\.safetensors: not a safetensors file/);
  assert.equal(await page.locator('img[src=x], #problem-list li b b').count(), 0);
  assert.ok((await page.textContent('#served')).includes(HOSTILE_CLASSES[0]));
});

await check('the server decodes DICOM for the preview, and heat maps lie over it with any opacity', async page => {
  await opened(page);
  await page.setInputFiles('#files', [FILES.scan]);
  assert.ok(await page.isVisible('[data-part=placeholder]'), 'a browser cannot show DICOM');
  await page.click('#run');
  await settled(page, 1);
  const size = name => page.locator(`[data-part=${name}]`).first().evaluate(node => [node.naturalWidth, node.naturalHeight, ...['x', 'y', 'width', 'height'].map(side => node.getBoundingClientRect()[side])]);
  await page.waitForFunction(() => document.querySelector('[data-part=preview]').naturalWidth === 120);
  const heat = page.locator('img.heat');
  assert.ok(await heat.isHidden());
  await openedAnswer(page, 'IM000001', 'fundus');
  const button = answer(page, 'IM000001', 'fundus').getByRole('button', { name: 'Show heat map of fundus' });
  await button.click();
  await heat.waitFor();
  await page.waitForFunction(() => document.querySelector('img.heat').naturalWidth > 0);
  assert.match(await image(page, 'IM000001').locator('[data-part=heat-note]').textContent(), /^Where \w+ was seen$/);
  assert.deepEqual(await size('heat'), await size('preview'), 'one lies over the other');
  assert.equal(await heat.evaluate(node => getComputedStyle(node).opacity), '0.6');
  const slider = page.getByRole('slider', { name: 'Opacity' });
  await slider.focus();
  await page.keyboard.press('End');
  assert.equal(await heat.evaluate(node => getComputedStyle(node).opacity), '1');
  assert.equal((await page.textContent('[data-part=opacity-value]')).replace(/\s/g, ' '), '100 %');
  const opaque = await page.locator('.stage').screenshot({ path: path.join(out, 'heatmap-opaque.png') });
  await page.keyboard.press('Home');
  const bare = await page.locator('.stage').screenshot();
  assert.notDeepEqual(opaque, bare);
  const which = page.getByRole('combobox', { name: 'Heat map' });
  assert.equal(await which.inputValue(), 'fundus');
  await which.selectOption('mammogram');
  await page.waitForFunction(() => /^Heat map of mammogram: where \w+ was seen$/.test(document.querySelector('img.heat').alt));
  await openedAnswer(page, 'IM000001', 'mammogram');
  await answer(page, 'IM000001', 'mammogram').getByRole('button', { name: 'Hide heat map of mammogram' }).click();
  assert.ok(await heat.isHidden());
});

await check('tasks are searched and chosen, and only those are asked', async page => {
  await opened(page);
  await page.setInputFiles('#files', [FILES.film]);
  await page.click('#choose-none');
  assert.equal(await page.textContent('#run'), 'Choose a task first');
  await page.fill('#search', 'NODULE');
  assert.deepEqual(await page.locator('#task-choice label:visible [data-part=name]').allTextContents(), ['chest_film']);
  await page.click('#choose-all');
  await page.fill('#search', '');
  assert.match(await page.textContent('#choice-note'), /1 of 5 chosen/);
  await page.getByText('mammogram').first().click();
  await page.uncheck('#heatmaps');
  assert.equal(await page.textContent('#run'), 'Ask 2 tasks about 1 image');
  await page.click('#run');
  await settled(page, 1);
  assert.deepEqual(await page.locator('.answer h4').allTextContents(), ['chest_film', 'mammogram']);
  const asked = [];
  await page.route('**/v1/predict', route => {
    asked.push(route.request().postDataBuffer().toString('latin1'));
    return route.fallback();
  });
  await page.check('#heatmaps');
  assert.equal(await page.textContent('#run'), 'Compute heat maps for 1 image');
  await page.click('#run');
  await page.waitForFunction(() => document.querySelector('#run').textContent === 'Nothing left to ask');
  assert.equal(asked.length, 2, 'one a task, and the answers are not asked for again');
  assert.ok(asked.every(form => /name="heatmap"\s+true/.test(form)));
  await answer(page, 'film.png', 'mammogram').locator('[data-part=heatmap]').click();
  await page.locator('img.heat').waitFor();
  assert.equal(asked.length, 2, 'it is there already');
});

await check('a card tells how good, how used and where from, with digests to copy', async (page, context) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: base });
  await opened(page);
  await ask(page, [FILES.film]);
  const view = await openedAnswer(page, 'film.png', 'findings');
  await view.locator('[data-part=card] > summary').click();
  const card = view.locator('.card');
  await card.locator('table').first().waitFor();
  const text = await card.textContent();
  assert.match(await view.locator('.figures').textContent(), /It never answered 10 on test data\.$/);
  assert.deepEqual(await card.locator('table').nth(1).locator('tbody tr').evaluateAll(rows => rows.map(row => row.cells[2].textContent)), ['7', '4', '7']);
  for (const wanted of ['0.912 [0.884, 0.941]', 'Validation accuracy', '96 × 96 pixels', 'temperature', 'rank 8', 'melo 0.', 'epochs']) assert.ok(text.includes(wanted), wanted);
  const { tasks, backbone } = await tasksNow();
  await card.getByRole('button', { name: 'Copy the version digest' }).click();
  await card.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), tasks.find(task => task.name === 'findings').version);
  await card.getByRole('button', { name: 'Copy the backbone digest' }).click();
  await page.waitForFunction(wanted => navigator.clipboard.readText().then(text => text === wanted), backbone.digest);
});

await check('the keyboard is enough', async page => {
  // Playwright takes over the dialogue some time after it is first waited for.
  page.on('filechooser', () => {});
  await opened(page);
  const reach = async name => {
    for (let step = 0; step < 60; step += 1) {
      await page.keyboard.press('Tab');
      const [found, outline] = await page.evaluate(() => {
        const node = document.activeElement;
        const label = node.getAttribute('aria-label') || node.labels?.[0]?.textContent || node.textContent;
        return [label.replace(/\s+/g, ' ').trim(), Number.parseFloat(getComputedStyle(node).outlineWidth)];
      });
      assert.ok(outline >= 2, `no visible focus on "${found}"`);
      if (found.startsWith(name)) return;
    }
    assert.fail(`"${name}" is not reached with Tab`);
  };
  await reach('Skip to the answers');
  await reach('Choose images');
  const chooser = page.waitForEvent('filechooser');
  await page.keyboard.press('Enter');
  await (await chooser).setFiles([FILES.film, FILES.scan]);
  await reach('blood_smear');
  await page.keyboard.press('Space');
  assert.match(await page.textContent('#choice-note'), /4 of 5 chosen/);
  await reach('Ask 4 tasks about 2 images');
  await page.keyboard.press('Enter');
  await settled(page, 2);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'run', 'the focus stays');
  await reach('chest_film');
  await page.keyboard.press('Enter');
  assert.equal(await answer(page, 'film.png', 'chest_film').getAttribute('open'), null, 'of four answers each stands open, and can be closed');
  await page.keyboard.press('Enter');
  await reach('Show heat map of chest_film');
  await page.keyboard.press('Enter');
  await page.locator('img.heat').first().waitFor();
  await page.screenshot({ path: path.join(out, 'keyboard.png') });
  await reach('About this task');
  await page.keyboard.press('Enter');
  await page.locator('.card table').first().waitFor();
});

await check('drops and pastes are taken', async page => {
  await opened(page, '#tasks');
  const send = (kind, name) => page.evaluate(([kind, name]) => {
    const data = new DataTransfer();
    data.items.add(new File(['x'], name));
    const event = kind === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true }) : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
    return event.defaultPrevented;
  }, [kind, name]);
  await send('dragenter', 'a.dcm');
  assert.ok(await page.locator('#drop.over').count());
  assert.ok(await send('dragover', 'a.dcm'), 'the browser would open the file itself');
  assert.ok(await send('drop', 'a.dcm'));
  await image(page, 'a.dcm').waitFor();
  await send('paste', 'b.png');
  await image(page, 'b.png').waitFor();
});

await check('a full queue is waited for as long as it says, and the wait can be given up', async page => {
  let refusals = 0;
  await page.route('**/v1/predict', async route => {
    const first = route.request().postDataBuffer().includes('film.png') && refusals === 0;
    const stuck = route.request().postDataBuffer().includes('IM000001');
    if (!first && !stuck) return route.fallback();
    refusals += 1;
    return route.fulfill({ status: 429, headers: { 'retry-after': stuck ? '30' : '2' }, json: { error: { code: 'busy', message: 'the queue is full' } } });
  });
  await opened(page);
  await page.setInputFiles('#files', [FILES.film, FILES.scan, FILES.hostile]);
  const started = Date.now();
  await page.click('#run');
  await image(page, 'film.png').getByText('The server is busy. Trying again in 2 s').waitFor();
  await image(page, 'IM000001').getByText(/Trying again in \d+ s/).waitFor();
  await page.screenshot({ path: path.join(out, 'busy.png') });
  await page.waitForSelector('.image[data-state=done]');
  assert.ok(Date.now() - started >= 1900, 'asked again too soon');
  await image(page, 'IM000001').getByRole('button', { name: 'Cancel' }).click();
  await image(page, 'IM000001').getByText('Cancelled').waitFor();
  await settled(page, 3);
  assert.equal(await page.locator('[data-state=done]').count(), 2);
}, { allow: ['429'] });

await check('a key is asked for, kept in this tab alone, and sent', async page => {
  const keys = path.join(folder, 'keys.toml');
  const right = execFileSync(melo, ['keys', 'add', 'check', '--file', keys], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  const locked = await start(melo, { ...settings, state: path.join(folder, 'locked'), keys, listen: '127.0.0.1:0' });
  await instead(page, locked);
  await page.goto(base);
  const dialog = page.getByRole('dialog', { name: 'API key' });
  await dialog.waitFor();
  await page.screenshot({ path: path.join(out, 'key.png') });
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await dialog.getByText('did not accept this key').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('alert').getByRole('button', { name: 'Enter a key' }).click();
  await page.keyboard.type(right);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#task-choice input');
  assert.ok(await page.locator('#banner').isHidden());
  await ask(page, [FILES.film]);
  assert.equal(await page.locator('.answer').count(), 5);
  const stored = await page.evaluate(() => [JSON.stringify(sessionStorage), JSON.stringify(localStorage) + document.cookie]);
  assert.ok(stored[0].includes(right) && !stored[1].includes(right));
  await page.click('#key-open');
  await page.click('#key-forget');
  await page.waitForSelector('#server[data-state=locked]');
  assert.equal(await page.locator('.answer').count(), 5, 'answers stay');
  await locked.stop();
}, { allow: ['401'] });

await check('a server that goes away is noticed, and so is its return', async page => {
  await opened(page);
  await ask(page, [FILES.film]);
  await server.stop();
  await page.waitForSelector('#server[data-state=gone]');
  assert.match(await page.textContent('#banner-text'), /has not answered since/);
  await page.setInputFiles('#files', [FILES.scan]);
  await page.click('#run');
  await image(page, 'IM000001').getByText('could not be reached').waitFor();
  assert.equal(await page.locator('.answer').count(), 5, 'answers stay');
  await page.screenshot({ path: path.join(out, 'gone.png') });
  server = await start(melo, { ...settings, listen: new URL(base).host });
  await page.waitForSelector('#server[data-state=ready]');
  assert.ok(await page.locator('#banner').isHidden());
  await image(page, 'IM000001').getByRole('button', { name: 'Try again' }).click();
  await settled(page, 2);
  assert.equal(await page.locator('[data-state=done]').count(), 2);
}, { allow: ['ERR_CONNECTION_REFUSED', 'ERR_EMPTY_RESPONSE', 'ERR_CONNECTION_RESET'] });

await check('answers are saved as JSON and CSV', async page => {
  await opened(page);
  await ask(page, [{ ...FILES.film, name: '=film,"1".png' }, FILES.text]);
  const saved = async button => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
    return fs.readFileSync(await download.path(), 'utf8');
  };
  const json = JSON.parse(await saved('#save-json'));
  const { digest, answers } = await api(FILES.film);
  assert.equal(json.images[0].digest, digest);
  assert.deepEqual(json.images[0].answers.map(answer => answer.probabilities), answers.map(answer => answer.probabilities));
  assert.match(json.images[1].error, /not an image/);
  assert.equal(json.note, INTENDED_USE);
  const lines = (await saved('#save-csv')).trim().split('\r\n');
  assert.equal(lines.length, 1 + answers.flatMap(answer => Object.keys(answer.probabilities)).length + 1);
  assert.ok(lines[1].startsWith(`"'=film,""1"".png",${digest},blood_smear,`), lines[1]);
  const finding = lines.filter(line => line.includes(',findings,'));
  assert.ok(finding[1].includes(`,10,${answers.find(answer => answer.task === 'findings').probabilities['10']},`), finding[1]);
}, { allow: ['422'] });

await check('the tasks show their throughput, and search works there too', async page => {
  await opened(page);
  await ask(page, [FILES.film]);
  await page.click('nav a[href="#tasks"]');
  await page.waitForFunction(() => Number(document.querySelector('.task [data-part=rate]').textContent) > 0);
  assert.match(await page.textContent('#server-facts'), /Waiting0 of 1024/);
  await page.fill('#filter', 'spiculated');
  assert.deepEqual(await page.locator('.task:visible h3 [data-part=name]').allTextContents(), ['mammogram']);
});

await check('the theme is chosen, and kept', async page => {
  await opened(page);
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(await paper(), 'rgb(255, 255, 255)');
  await page.getByLabel('Theme').selectOption('dark');
  assert.equal(await paper(), 'rgb(18, 22, 27)');
  await page.reload();
  assert.equal(await paper(), 'rgb(18, 22, 27)');
});

await check('who wants no motion gets none', async page => {
  await opened(page);
  await page.setInputFiles('#files', [FILES.film]);
  assert.equal(await page.locator('.spinner').evaluate(node => getComputedStyle(node).animationName), 'none');
}, { reducedMotion: 'reduce' });

await check('a file that is no image is told in words', async page => {
  await opened(page);
  await ask(page, [PDF]);
  const text = await image(page, 'letter.pdf').locator('.failure').textContent();
  assert.match(text, /this is a PDF document\. PNG, JPEG, TIFF, BMP/);
  assert.doesNotMatch(text, /\[\d|0x|\b[0-9a-f]{2}, /);
}, { allow: ['422'] });

await check('a frame is named, and another one is asked for', async page => {
  await opened(page);
  await ask(page, [LOOP]);
  const status = image(page, 'loop.dcm').locator('[data-part=status]');
  assert.match(await status.textContent(), /5 answers in .*, frame 1 of 3/);
  const first = await answer(page, 'loop.dcm', 'fundus').locator('.sure').textContent();
  const preview = await page.locator('[data-part=preview]').getAttribute('src');
  const box = page.getByRole('spinbutton', { name: 'Frame' });
  assert.equal(await box.inputValue(), '1');
  await box.fill('3');
  await box.press('Enter');
  await page.waitForFunction(() => /frame 3 of 3/.test(document.querySelector('[data-part=status]').textContent));
  assert.notEqual(await answer(page, 'loop.dcm', 'fundus').locator('.sure').textContent(), first);
  assert.notEqual(await page.locator('[data-part=preview]').getAttribute('src'), preview);
  await box.fill('9');
  await box.press('Enter');
  assert.equal(await box.inputValue(), '3', 'there is no ninth');
  await page.screenshot({ path: path.join(out, 'frame.png'), fullPage: true });
});

await check('what was seen of an image stands beside its answers', async page => {
  await page.route('**/v1/predict', async route => {
    const response = await route.fetch();
    const json = await response.json();
    json.images[0].remarks = ['slice 20 of 40', 'within 6 % of the range of its samples', '<b>flat</b>'];
    await route.fulfill({ response, json });
  });
  await opened(page);
  await ask(page, [FILES.film]);
  assert.deepEqual(await image(page, 'film.png').locator('[data-part=remarks] li').allTextContents(), ['slice 20 of 40', 'within 6 % of the range of its samples', '<b>flat</b>']);
  await page.screenshot({ path: path.join(out, 'remarks.png') });
});

await check('on a phone twenty tasks are a line each, answers come before maps, and a map is brought into view', async page => {
  const many = await start(melo, { ...(await crowd(settings, path.join(folder, 'crowd'), 20)), listen: '127.0.0.1:0' });
  try {
    await instead(page, many);
    const asked = [];
    let hold = null;
    const held = new Promise(resolve => { hold = resolve; });
    await page.route('**/v1/predict', async route => {
      asked.push(route.request().postDataBuffer().toString('latin1'));
      if (asked.length === 2) await held;
      await route.fallback();
    });
    await opened(page);
    assert.ok(!await page.isChecked('#heatmaps'), 'of many tasks maps are not asked for by themselves');
    await page.setInputFiles('#files', [FILES.film]);
    await page.click('#run');
    await page.waitForFunction(() => document.querySelectorAll('.answer').length === 8);
    assert.equal(await image(page, 'film.png').locator('[data-part=status]').textContent(), '8 of 20 answers');
    await page.screenshot({ path: path.join(out, 'phone-partial.png') });
    hold();
    await settled(page, 1);
    assert.equal(await page.locator('.answer').count(), 20);
    assert.equal(asked.filter(form => form.includes('name="heatmap"')).length, 0);
    const lines = await page.locator('.answer').evaluateAll(views => views.map(view => [view.open, view.getBoundingClientRect().height]));
    assert.ok(lines.every(([open, height]) => !open && height < 80), JSON.stringify(lines));
    const height = await page.evaluate(() => document.scrollingElement.scrollHeight);
    assert.ok(height < 3500, `${height} pixels`);
    await page.screenshot({ path: path.join(out, 'phone-twenty.png'), fullPage: true });
    const last = page.locator('.answer').last();
    await last.locator('> summary').click();
    await last.getByRole('button', { name: /^Show heat map/ }).click();
    await page.locator('img.heat').waitFor();
    await page.waitForFunction(() => {
      const { top, bottom } = document.querySelector('img.heat').getBoundingClientRect();
      return top >= 0 && bottom <= window.innerHeight;
    });
    await page.screenshot({ path: path.join(out, 'phone-heatmap.png') });
    await page.getByRole('button', { name: /^Back to/ }).click();
    await page.waitForFunction(() => {
      const { top, bottom } = document.activeElement.getBoundingClientRect();
      return document.activeElement.textContent === 'Hide heat map' && top >= 0 && bottom <= window.innerHeight;
    });
    await page.getByRole('button', { name: 'Open all answers for film.png' }).click();
    await page.getByRole('button', { name: 'Close all answers for film.png' }).click();
    assert.equal(await page.locator('.answer[open]').count(), 0);
  } finally {
    await many.stop();
  }
}, { viewport: { width: 390, height: 844 } });

await check('a bare server has images to try', async page => {
  const bare = await start(melo, { state: path.join(folder, 'first'), listen: '127.0.0.1:0', log: 'off' });
  try {
    await instead(page, bare);
    await opened(page);
    await page.locator('.sample img').nth(12).waitFor();
    await page.screenshot({ path: path.join(out, 'samples.png'), fullPage: true });
    await page.getByRole('button', { name: 'fundus_exudates' }).click();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Ask 4 tasks about 1 image');
    await page.keyboard.press('Enter');
    await settled(page, 1);
    assert.equal(await page.locator('.answer').count(), 4);
  } finally {
    await bare.stop();
  }
});

for (const width of [360, 390, 768, 1280]) {
  for (const colorScheme of ['light', 'dark']) {
    await check(`${width} pixels, ${colorScheme}: nothing overflows, all text has contrast, all controls have names, axe finds nothing`, async page => {
      const look = async name => {
        assert.deepEqual(await page.evaluate(overflow), [], name);
        assert.deepEqual(await page.evaluate(contrasts), [], name);
        assert.deepEqual(await page.evaluate(nameless), [], name);
        assert.deepEqual(await page.evaluate(longNumbers), [], name);
        assert.deepEqual(await axe(page), [], name);
        await page.screenshot({ path: path.join(out, `${width}-${colorScheme}-${name}.png`), fullPage: true });
      };
      await opened(page);
      await look('empty');
      await ask(page, ALL);
      await (await openedAnswer(page, 'film.png', 'chest_film')).locator('[data-part=heatmap]').click();
      await page.locator('img.heat:visible').waitFor();
      await look('answers');
      await answer(page, 'film.png', 'chest_film').locator('[data-part=card] > summary').click();
      await page.locator('.card table').first().waitFor();
      await look('card');
      await page.click('nav a[href="#tasks"]');
      await page.locator('.task summary').first().click();
      await page.locator('.task .card table').first().waitFor();
      await look('tasks');
    }, { viewport: { width, height: 800 }, colorScheme, allow: ['422'] });
  }
}

await browser.close();
await server.stop();
fs.rmSync(folder, { recursive: true });
console.log(failed ? `${failed} failed` : `all passed; pictures in ${out}`);
process.exit(failed ? 1 : 0);
