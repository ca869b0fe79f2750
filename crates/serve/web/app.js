// The page of `melo serve`: its views and themes, and the start.

import './files.js';
import './results.js';
import './tasks.js';
import { $, show } from './dom.js';
import { active } from './images.js';
import { poll, rest } from './state.js';

function drawView() {
  const tasks = location.hash === '#tasks';
  show($('view-tasks'), tasks);
  show($('view-images'), !tasks);
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === (tasks ? '#tasks' : '#images')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $('theme').value = name;
}

$('theme').addEventListener('change', () => {
  theme($('theme').value);
  localStorage.setItem('melo-theme', $('theme').value);
});
window.addEventListener('hashchange', drawView);
// A tab that nobody sees asks nothing; images on their way still arrive.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) rest();
  else poll();
});
window.addEventListener('beforeunload', event => { if (active > 0) event.preventDefault(); });

theme(localStorage.getItem('melo-theme') || 'system');
drawView();
poll();
