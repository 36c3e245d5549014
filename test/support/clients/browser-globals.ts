/**
 * The source of a Node module that adds what pages in a browser have and Node lacks: cookies, relative URLs, the
 * check of CORS, and `EventSource`. The environment variable `ORIGIN` has the origin of the page. The module
 * evaluates each line of its input, prints each `stream.open`, and keeps the newest stream token in `token`.
 */
export const browserGlobals = `
  import { createInterface } from 'node:readline';
  import * as client from 'eventsource';
  const origin = process.env.ORIGIN;
  const request = globalThis.fetch;
  let cookie = '';
  globalThis.fetch = async (path, { headers, ...init } = {}) => {
    const url = new URL(path, origin);
    const isOwn = url.origin === origin;
    const response = await request(url, { ...init, headers: { ...headers, ...(isOwn ? { cookie } : { origin }) } });
    if (!isOwn && response.headers.get('access-control-allow-origin') !== origin) throw new TypeError('CORS');
    cookie = response.headers.getSetCookie()[0]?.split(';')[0] ?? cookie;
    return response;
  };
  globalThis.EventSource = class extends client.EventSource {
    constructor(url) {
      super(url);
      globalThis.token = new URL(url).pathname.split('/').at(-1);
      this.addEventListener('stream.open', ({ data }) => console.log('stream.open ' + data));
    }
  };
  createInterface({ input: process.stdin }).on('line', (line) => eval(line));`;
