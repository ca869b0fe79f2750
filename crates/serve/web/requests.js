// What is asked of the server, and how it refuses.

/** What a full queue is waited for where the server does not say, s. */
const BUSY_S = 5;

export class Refused extends Error {
  constructor(status, message, { key, retryAfter } = {}) {
    super(message);
    Object.assign(this, { status, key, retryAfter });
  }
}

/** Nobody answered. */
export const GONE = 0;

function refusal(status, text, more) {
  let message = `The server answered with status ${status} and no reason.`;
  try {
    message = JSON.parse(text).error.message || message;
  } catch { /* what stands between us and the server does not speak its language */ }
  return new Refused(status, message, more);
}

export const key = {
  value: sessionStorage.getItem('melo-key') || '',
  /** Resolves at the next key. */
  entered: null,
  headers: () => (key.value ? { Authorization: `Bearer ${key.value}` } : {}),
};

export const get = async path => (await answerOf(path)).json();

export async function answerOf(path) {
  const used = key.value;
  let response;
  try {
    response = await fetch(path, { headers: key.headers(), cache: 'no-store' });
  } catch {
    throw new Refused(GONE, 'The server could not be reached.');
  }
  if (!response.ok) throw refusal(response.status, await response.text(), { key: used });
  return response;
}

/**
 * One image to some tasks; `what` may ask for `heatmap`, `preview`, and a `frame`. `XMLHttpRequest` because it tells how
 * much was sent.
 */
export function predict(file, tasks, what, signal, onSent) {
  const used = key.value;
  const form = new FormData();
  form.append('tasks', tasks.join(','));
  for (const [name, value] of Object.entries(what)) if (value) form.append(name, String(value));
  form.append('image', file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', 'v1/predict');
    for (const [name, value] of Object.entries(key.headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = event => { if (event.lengthComputable) onSent(event.loaded / event.total); };
    request.upload.onload = () => onSent(1);
    request.onerror = () => reject(new Refused(GONE, 'The server could not be reached; nothing was answered.'));
    request.onabort = () => reject(signal.reason);
    request.onload = () => {
      if (request.status !== 200) {
        const said = Number.parseInt(request.getResponseHeader('Retry-After'), 10);
        const unsaid = request.status === 429 ? BUSY_S : undefined;
        reject(refusal(request.status, request.responseText, { key: used, retryAfter: Number.isFinite(said) ? said : unsaid }));
        return;
      }
      try {
        resolve(ofFile(JSON.parse(request.responseText)));
      } catch {
        reject(new Refused(request.status, 'The answer could not be read.'));
      }
    };
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(form);
  });
}

/** What is said of one file: of its image, and of the bag that its images are. The image that counted most stands for these. */
function ofFile({ images: [image], bags = [] }) {
  const ofBags = bags.flatMap(bag => bag.answers.map(answer => ({ ...answer, heatmap: answer.heatmaps?.[0], counted: counted(bag, answer) })));
  const { answers = [], ...about } = image ?? { name: bags[0].name, digest: bags[0].digest };
  return { ...about, answers: [...answers, ...ofBags] };
}

/** Which images of a bag counted most, in words. */
function counted({ images }, { attention, leading }) {
  const shares = leading.slice(0, 3).map(place => `${place + 1} (${Math.round(100 * attention[place])}\u202f%)`);
  return `of ${images.length} images ${shares.join(', ')} counted most`;
}

const cards = new Map();

/** The card of a version and who signed it, asked for once. */
export function cardOf(task, version) {
  if (!cards.has(version)) {
    const asked = get(`v1/tasks/${encodeURIComponent(`${task}@${version}`)}`).then(found => ({ ...found.card, signed_by: found.signed_by }));
    asked.catch(() => cards.delete(version));
    cards.set(version, asked);
  }
  return cards.get(version);
}
