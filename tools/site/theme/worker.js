// Pages that are opened as files may start no workers: their search runs in a hidden frame.
if (location.protocol === 'file:') {
  window.Worker = class {
    constructor(address) {
      this.frame = Object.assign(document.createElement('iframe'), { hidden: true });
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write('<body>');
      inside.document.close();
      inside.postMessage = data => this.onmessage?.({ data });
      const script = Object.assign(inside.document.createElement('script'), { src: address });
      this.loaded = new Promise(done => { script.onload = done; });
      inside.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.onmessage({ data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
