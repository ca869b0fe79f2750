#!/usr/bin/env node
// The pictures of the first page: the server's page with answers, and a study's comparison.
//
//     node tools/page/figures.mjs target/release/melo FOLDER docs/images
//
// FOLDER holds `melo-quickstart` and `study/report.html`; tools/site/figures.sh makes both and then calls this.

import { chromium } from 'playwright-core';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { start } from './server.mjs';

const LARGEST = 150_000;
const [melo, folder, out] = process.argv.slice(2);
const quickstart = path.join(folder, 'melo-quickstart');
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'melo-figures-'));
const plugins = path.join(scratch, 'plugins');
fs.mkdirSync(plugins);
for (const name of fs.readdirSync(quickstart)) {
  if (name.endsWith('.safetensors') && name !== 'backbone.safetensors') fs.copyFileSync(path.join(quickstart, name), path.join(plugins, name));
}
const images = path.join(quickstart, 'mammogram/images');
const image = path.join(images, fs.readdirSync(images).sort((a, b) => a.localeCompare(b)).at(-1));

const server = await start(melo, { backbone: path.join(quickstart, 'backbone.safetensors'), plugins, state: path.join(scratch, 'state'), listen: '127.0.0.1:0', log: 'off' });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });

/** A picture of an address, `scale` pixels for each of the window. */
async function shown(name, address, { height, scale }, prepare) {
  const page = await (await browser.newContext({ viewport: { width: 1120, height }, deviceScaleFactor: scale, colorScheme: 'light' })).newPage();
  await page.goto(address);
  const clip = await prepare(page);
  const file = path.join(out, name);
  await page.screenshot({ path: file, clip });
  const size = fs.statSync(file).size;
  if (size > LARGEST) throw new Error(`${file}: ${size} bytes, expected at most ${LARGEST}`);
  console.log(`${file}: ${size} bytes`);
}

try {
  await shown('page.png', server.address, { height: 820, scale: 0.7 }, async page => {
    await page.waitForSelector('#task-choice input', { state: 'attached' });
    await page.click('#choose-none');
    for (const task of ['chest_film', 'mammogram']) await page.getByRole('checkbox', { name: task }).check();
    await page.setInputFiles('#files', image);
    await page.click('#run');
    await page.waitForSelector('[data-state=done]');
    await page.locator('.answer[data-task=mammogram] [data-part=heatmap]').click();
    await page.waitForFunction(() => [...document.querySelectorAll('img.heat')].some(map => map.complete && map.naturalWidth && map.checkVisibility()));
    await page.evaluate(() => scrollTo(0, 0));
  });
  await shown('report.png', pathToFileURL(path.join(folder, 'study/report.html')).href, { height: 3000, scale: 1 }, async page => {
    const top = async text => (await page.getByText(text).first().boundingBox()).y;
    const from = await top('Test macro AUC, accuracy and difference');
    return { x: 0, y: from - 24, width: 800, height: await top('Mean over tasks') - from };
  });
} finally {
  await browser.close();
  await server.stop();
  fs.rmSync(scratch, { recursive: true });
}
