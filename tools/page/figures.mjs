#!/usr/bin/env node
// The pictures of the first page: the server's page with answers, and a plug-in's card.
//
//     node tools/page/figures.mjs target/release/melo FOLDER docs/images
//
// FOLDER holds `melo-quickstart` and the card `fundus.html`; tools/site/figures.sh makes both and then calls this.

import { chromium } from 'playwright-core';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { start } from './server.mjs';

const LARGEST = 150_000;
const [melo, folder, out] = process.argv.slice(2);
const quickstart = path.join(folder, 'melo-quickstart');
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'melo-figures-'));
const plugins = path.join(quickstart, 'plugins');
// The last image of the test split that is answered right: a picture of how the page looks, not of how good the plug-in is.
const backbone = path.join(quickstart, 'backbone.safetensors');
const tests = fs.readFileSync(path.join(quickstart, 'fundus/labels.csv'), 'utf8').trim().split('\n').map(row => row.split(',')).filter(row => row[1] === 'test').slice(-20);
const images = tests.map(([name]) => path.join(quickstart, 'fundus', name));
const said = execFileSync(melo, ['predict', '--backbone', backbone, '--plugin', path.join(plugins, 'fundus.safetensors'), '--json', ...images], { encoding: 'utf8' });
const image = images.findLast((_, place) => JSON.parse(said.trim().split('\n')[place]).predicted === tests[place][2]);

const server = await start(melo, { backbone, plugins, state: path.join(scratch, 'state'), listen: '127.0.0.1:0', log: 'off' });
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
    for (const task of ['chest_film', 'fundus']) await page.getByRole('checkbox', { name: task }).check();
    await page.setInputFiles('#files', image);
    await page.click('#run');
    await page.waitForSelector('[data-state=done]');
    await page.locator('.answer[data-task=fundus] [data-part=heatmap]').click();
    await page.waitForFunction(() => [...document.querySelectorAll('img.heat')].some(map => map.complete && map.naturalWidth && map.checkVisibility()));
    await page.evaluate(() => scrollTo(0, 0));
  });
  await shown('card.png', pathToFileURL(path.join(folder, 'fundus.html')).href, { height: 3000, scale: 0.75 }, async page => {
    const { y } = await page.getByRole('heading', { name: 'Reliability' }).boundingBox();
    return { x: 0, y: 0, width: 1100, height: y };
  });
} finally {
  await browser.close();
  await server.stop();
  fs.rmSync(scratch, { recursive: true });
}
