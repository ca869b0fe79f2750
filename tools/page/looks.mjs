// What is wrong with a page, as lines; most of these functions run in it.

import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

const AXE = fs.readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

/** What axe finds: landmarks, headings, tables, names, and the rest of its rules. */
export async function axe(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.html.slice(0, 160)}`));
}

/** Numbers with more digits than anyone reads, in what is shown or told by a pointer. */
export function longNumbers() {
  const texts = [document.body.innerText, ...[...document.querySelectorAll('[title]')].map(node => node.title)];
  return texts.flatMap(text => text.match(/\d\.\d{7,}/g) ?? []);
}

/** What is wider than the window and cannot be scrolled inside a box of its own. */
export function overflow() {
  const findings = [];
  const wide = document.scrollingElement.scrollWidth;
  if (wide > window.innerWidth) findings.push(`the page is ${wide} pixels wide in a window of ${window.innerWidth}`);
  for (const node of document.body.querySelectorAll('*')) {
    const box = node.getBoundingClientRect();
    const seen = box.width > 1 && node.checkVisibility();
    if (seen && box.right > window.innerWidth + 1 && !node.closest('.scroll')) findings.push(`${node.tagName} ${node.className} ends at ${Math.round(box.right)}`);
    if (seen && node.matches('button, h1, h2, h3, h4') && node.scrollWidth > node.clientWidth + 1) findings.push(`"${node.textContent}" is cut`);
  }
  return findings;
}

/** Text with less contrast than WCAG 2.2 AA asks for (1.4.3), and marks with less than 3 (1.4.11). */
export function contrasts() {
  const findings = new Set();
  const colour = text => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(value => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  for (const node of document.body.querySelectorAll('*')) {
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(node);
    const text = [...node.childNodes].filter(child => child.nodeType === Node.TEXT_NODE).map(child => child.data.trim()).join('');
    const idle = node.matches(':disabled, [aria-disabled=true]');
    if (text && !idle && node.getBoundingClientRect().width > 1) {
      const size = Number.parseFloat(style.fontSize);
      const enough = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
      const found = contrast(colour(style.color), behind(node));
      if (found < enough) findings.add(`"${text.slice(0, 40)}" has ${found.toFixed(2)}`);
    }
    if (node.matches('.fill, .tick, .dot')) {
      const own = node.matches('.dot') ? style.borderTopColor : style.backgroundColor;
      const found = contrast(colour(own), behind(node.parentElement));
      if (found < 3) findings.add(`a ${node.className} has ${found.toFixed(2)}`);
    }
    if (node.matches('input[type=search], select')) {
      const found = contrast(colour(style.borderTopColor), behind(node.parentElement));
      if (found < 3) findings.add(`the edge of ${node.id} has ${found.toFixed(2)}`);
    }
  }
  return [...findings];
}

/** Controls that a screen reader could only call "button". */
export function nameless() {
  const controls = [...document.querySelectorAll('button, input, select, summary, a, progress')].filter(node => node.checkVisibility());
  const name = node => node.getAttribute('aria-label') || [...(node.labels ?? [])].map(label => label.textContent).join('') || node.textContent;
  return controls.filter(node => !name(node).trim()).map(node => node.outerHTML.slice(0, 120));
}
