// Asking until there is an answer, a refusal for good, or somebody cancels.

import { key } from './requests.js';
import { trouble } from './state.js';

/** What `ask` gives; a full queue and a missing key are waited for, and told of. */
export async function patiently(ask, signal, { onBusy = () => {}, onKey = () => {} } = {}) {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await ask();
    } catch (error) {
      if (error.retryAfter) await waitBusy(error.retryAfter, signal, onBusy);
      else if (error.status === 401) await waitKey(error, signal, onKey);
      else throw error;
    }
  }
}

async function waitBusy(seconds, signal, onBusy) {
  for (let left = seconds; left > 0; left -= 1) {
    onBusy(left, seconds);
    await unless(signal, new Promise(resolve => { setTimeout(resolve, 1000); }));
  }
}

async function waitKey(error, signal, onKey) {
  onKey();
  trouble(error);
  if (key.entered) await unless(signal, key.entered.promise);
}

/** The promise, or a rejection as soon as somebody cancels. */
function unless(signal, promise) {
  return Promise.race([promise, new Promise((_, reject) => { signal.addEventListener('abort', () => reject(signal.reason), { once: true }); })]);
}
