import { H2Client, type RequestHead } from './h2-client.js';
import { nowMicros } from './marked-events.js';
import type { Requester, TimedResponse } from './requester.js';

/** A `Requester` over one HTTP/2 connection. */
export class H2Requester implements Requester {
  readonly #pending = new Map<
    number,
    { sentAt: number; parts: string[]; resolve: (response: TimedResponse) => void }
  >();
  #client: H2Client | undefined;

  static async open(port: number): Promise<H2Requester> {
    const requester = new H2Requester();
    requester.#client = await H2Client.open(port, {
      onData: (streamId, buffer, start, end) =>
        requester.#pending.get(streamId)?.parts.push(buffer.toString('latin1', start, end)),
      onEnd: (streamId) => requester.#end(streamId),
      onClose: () => {
        for (const streamId of [...requester.#pending.keys()]) requester.#end(streamId);
      },
    });
    return requester;
  }

  send(head: RequestHead, body?: Buffer): Promise<TimedResponse> {
    return new Promise((resolve) => {
      const streamId = this.#client?.request(head, body) ?? 0;
      this.#pending.set(streamId, { sentAt: nowMicros(), parts: [], resolve });
    });
  }

  close(): void {
    this.#client?.close();
  }

  #end(streamId: number): void {
    const pending = this.#pending.get(streamId);
    this.#pending.delete(streamId);
    pending?.resolve({
      text: pending.parts.join(''),
      durationMicros: nowMicros() - pending.sentAt,
    });
  }
}
