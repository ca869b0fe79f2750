// A server of the check's own: the embedded backbone, its four tasks, one with findings and hostile names, one broken file.

import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { cardOf, withCard } from './material.mjs';

/** Names that would run if a page took them for markup, and two that JavaScript would sort as numbers. */
export const HOSTILE_CLASSES = ['<img src=x onerror="window.pwned=1">', '10', '2'];
export const THRESHOLDS = [0.02, 0.9, 0.35];
const FIGURES = { test_auc_macro: [0.9123, [0.884, 0.941]], test_acc: [0.853, [0.81, 0.8949]] };

export async function start(melo, settings) {
  const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn(melo, ['serve', ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', text => { said += text; });
  const address = await new Promise((resolve, reject) => {
    let heard = '';
    child.stdout.on('data', text => {
      heard += text;
      const found = heard.match(/listening on (http:\S+)/);
      if (found) resolve(found[1]);
    });
    child.on('exit', code => reject(new Error(`melo serve ended with ${code}: ${said}`)));
  });
  const stop = () => new Promise(resolve => {
    if (child.exitCode !== null) resolve();
    child.on('exit', resolve);
    child.kill('SIGTERM');
  });
  return { address, stop };
}

/** The folders of a server with every kind of task; returns its settings. */
export async function furnish(melo, folder) {
  const first = path.join(folder, 'first');
  const plugins = path.join(folder, 'plugins');
  fs.mkdirSync(plugins);
  await (await start(melo, { state: first, listen: '127.0.0.1:0', log: 'off' })).stop();
  const stored = path.join(first, 'plugins');
  const names = fs.readdirSync(stored).filter(name => name.endsWith('.safetensors'));
  if (names.length !== 4) throw new Error(`${melo} comes with ${names.length} tasks, expected 4`);
  for (const name of names) {
    const file = fs.readFileSync(path.join(stored, name));
    const { task } = cardOf(file);
    fs.writeFileSync(path.join(plugins, `${task}.safetensors`), file);
    if (task !== 'chest_film') continue;
    // Other classes want a self-test of their own.
    const other = path.join(plugins, 'findings.safetensors');
    fs.writeFileSync(other, withCard(file, findings));
    execFileSync(melo, ['plugin', 'certify', other, '--backbone', path.join(first, 'backbone.safetensors')], { stdio: 'ignore' });
  }
  fs.writeFileSync(path.join(plugins, 'broken<b>.safetensors'), 'no plug-in');
  return { backbone: path.join(first, 'backbone.safetensors'), plugins, state: path.join(folder, 'state'), log: 'off' };
}

function findings({ sets, self_test, ...card }) {
  const metrics = { ...card.metrics };
  const metric_intervals = {};
  for (const [name, [value, interval]] of Object.entries(FIGURES)) {
    metrics[name] = value;
    metric_intervals[name] = interval;
  }
  // The second class is never answered.
  Object.assign(metrics, { 'test_sensitivity/10': 0, 'test_specificity/10': 1 });
  const test = { images: 20, patients: null, counts: [[5, 3, 2, 10], [0, 0, 4, 16], [6, 1, 1, 12]], confusion: null, reliability: [], calibration_error: 0.1 };
  return { ...card, test, task: 'findings', kind: 'multi_label', classes: HOSTILE_CLASSES, thresholds: THRESHOLDS, metrics, metric_intervals };
}

/** The settings of a server with `count` tasks: those of another one, again under other names. */
export async function crowd(settings, folder, count) {
  const plugins = path.join(folder, 'plugins');
  fs.mkdirSync(plugins, { recursive: true });
  const names = fs.readdirSync(settings.plugins).filter(name => !name.startsWith('broken'));
  for (let number = 1; number <= count; number += 1) {
    const name = names[number % names.length];
    const task = `${path.parse(name).name}_${number}`;
    const file = fs.readFileSync(path.join(settings.plugins, name));
    fs.writeFileSync(path.join(plugins, `${task}.safetensors`), withCard(file, card => ({ ...card, task })));
  }
  return { ...settings, plugins, state: path.join(folder, 'state') };
}
