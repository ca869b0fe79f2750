#!/usr/bin/env node
// Pages that need no server (a study's report, a plug-in's card), looked at on a phone and on a desk.
//
//     node tools/page/pages.mjs target/tmp/*.html
//
// Prints what axe finds and what overflows, and exits with 1 if there is anything.

import { chromium } from 'playwright-core';
import { pathToFileURL } from 'node:url';
import { axe, overflow } from './looks.mjs';

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
let found = 0;
for (const file of process.argv.slice(2)) {
  for (const width of [390, 1280]) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await (await browser.newContext({ viewport: { width, height: 844 }, colorScheme })).newPage();
      await page.goto(pathToFileURL(file).href);
      for (const line of [...await axe(page), ...await page.evaluate(overflow)]) {
        found += 1;
        console.log(`${file} at ${width} pixels, ${colorScheme}: ${line}`);
      }
      await page.context().close();
    }
  }
}
await browser.close();
process.exit(found ? 1 : 0);
