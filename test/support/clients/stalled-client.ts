import { once } from 'node:events';
import { Agent, request } from 'node:https';
import type { Readable } from 'node:stream';
import { observeH1 } from '../openapi/observer.js';
import { ca } from '../servers/certificate.js';
import { withDeadline } from '../with-deadline.js';
import { EventCollector } from './event-collector.js';
import { H2Client } from './h2-client.js';

/** A client that opens a stream but reads nothing from it until `resumeReading`. */
export class StalledClient extends EventCollector {
  readonly #resumeReading: () => void;
  readonly cut: () => void;

  private constructor(input: Readable, resumeReading: () => void, cut: () => void) {
    super();
    this.cut = cut;
    input.on('error', () => {}); // 'close' follows.
    input.once('close', () => this.end());
    this.#resumeReading = () => {
      input.on('data', (bytes: Buffer) => this.feed(bytes));
      resumeReading();
    };
  }

  /** Opens a stream over HTTP/2 with a flow-control window of zero bytes. */
  static overClosedWindow(url: string, bearer: string): Promise<StalledClient> {
    return StalledClient.#overH2(url, bearer, 0);
  }

  /** Opens a stream over HTTP/2 with a flow-control window of 65,535 bytes, which fills up. */
  static overH2(url: string, bearer: string): Promise<StalledClient> {
    return StalledClient.#overH2(url, bearer, 65_535);
  }

  /** Opens a stream over HTTP/1.1 on a TCP connection that is not read. */
  static async overH1(url: string, bearer: string): Promise<StalledClient> {
    const headers = { accept: 'text/event-stream', authorization: `Bearer ${bearer}` };
    const path = '/stream/live';
    const outgoing = request(url + path, { headers, ca, agent: new Agent() });
    const started = { method: 'GET', path, headers, body: undefined };
    observeH1(Number(new URL(url).port), started, outgoing);
    outgoing.end();
    const [response] = await withDeadline(once(outgoing, 'response'), 'a response head');
    outgoing.on('error', () => {});
    return new StalledClient(
      response,
      () => {},
      () => outgoing.destroy(),
    );
  }

  static async #overH2(url: string, bearer: string, windowBytes: number): Promise<StalledClient> {
    const client = await H2Client.connect(url, { settings: { initialWindowSize: windowBytes } });
    const headers = { accept: 'text/event-stream' };
    const { stream } = await client.send('GET', '/stream/live', { bearer, headers });
    const resumeReading = () => client.session.settings({ initialWindowSize: 65_535 });
    return new StalledClient(stream, resumeReading, () => client.destroy());
  }

  resumeReading(): void {
    this.#resumeReading();
  }
}
