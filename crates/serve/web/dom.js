// What all parts of the page are made of: elements, and words for numbers. Names of files, tasks and classes come from
// outside: they only ever become text.

export const $ = id => document.getElementById(id);
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
export const stamp = template => $(template).content.firstElementChild.cloneNode(true);
export const show = (node, on) => { node.hidden = !on; };
/** What a screen reader says, now and only now. */
export const announce = text => { $('announce').textContent = text; };

/** An element with properties and children; strings become text. */
export function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A name that may break after its underscores. */
export function named(text) {
  const pieces = text.split(/(?<=_)/);
  return element('span', {}, ...pieces.flatMap((piece, index) => (index ? [element('wbr'), piece] : [piece])));
}

/** An address of bytes, given back with the image. */
export function urlOf(image, blob) {
  const url = URL.createObjectURL(blob);
  image.urls.push(url);
  return url;
}

export const pngOf = base64 => new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], { type: 'image/png' });

/** Sets text only where it changed, so that selections and screen readers are left alone. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const KINDS = {
  single_label: n => `one of ${plural(n, 'class', 'classes')}`,
  multi_label: n => `any of ${plural(n, 'finding')}`,
  ordinal: n => `one of ${plural(n, 'grade')}`,
  regression: n => plural(n, 'number'),
  segmentation: n => `a mask of ${plural(n - 1, 'class', 'classes')}`,
};
export const kindText = task => KINDS[task.kind](task.classes.length) + (task.bag ? ' of all images of a file together' : '');

/** A number of a regression, with five digits. */
export const number = value => String(Number(value.toPrecision(5)));

/** A probability as a percentage that claims no certainty. */
export function percent(p, digits = 1) {
  const smallest = 10 ** -digits;
  const value = p * 100;
  if (value > 0 && value < smallest / 2) return `< ${smallest}\u202f%`;
  if (value < 100 && value > 100 - smallest / 2) return `> ${(100 - smallest).toFixed(digits)}\u202f%`;
  return `${value.toFixed(digits)}\u202f%`;
}

/** Two percentages with as many digits as it takes to tell them apart. */
export function percentPair(a, b) {
  for (let digits = 1; ; digits += 1) {
    const pair = [percent(a, digits), percent(b, digits)];
    if (pair[0] !== pair[1] || a === b || digits === 6) return pair;
  }
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
}

/** A digest, shortened, with a button that copies all of it. */
export function digest(value, what) {
  const code = element('code', { title: value }, value.slice(0, 12), '…');
  const button = element('button', { type: 'button', className: 'copy quiet' }, 'Copy');
  button.setAttribute('aria-label', `Copy the ${what}`);
  button.addEventListener('click', async () => {
    const copied = await copy(value, code);
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    announce(copied ? `The ${what} was copied` : `The ${what} is selected`);
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
  return element('span', { className: 'digest' }, code, ' ', button);
}

/** Browsers give the clipboard to pages of HTTPS and of this machine only; elsewhere the text is selected. */
async function copy(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    code.textContent = text;
    getSelection().selectAllChildren(code);
    return false;
  }
}

export const definition = (name, ...values) => element('div', {}, element('dt', {}, name), element('dd', {}, ...values));
