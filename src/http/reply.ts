export type Headers = Readonly<Record<string, string>>;

/** The response that a handler returns. Only the server writes it to the transport. */
export type Reply = CompleteReply | StreamedReply;

export interface CompleteReply {
  readonly status: number;
  readonly headers: Headers;
  readonly body?: Buffer;
}

export interface StreamedReply {
  readonly status: number;
  readonly headers: Headers;
  /** Called once the head has been sent. Not called for HEAD or after the client disconnected. */
  open(sink: Sink): void;
  /** Called instead of `open`, or after `open` has thrown. Nothing can be sent any more. */
  cancel?(): void;
}

/** Writes the body of a streamed reply, over either protocol. */
export interface Sink {
  /** Number of bytes that were passed to `write` and that the transport has not accepted yet. */
  readonly queuedBytes: number;
  readonly closed: boolean;
  /** Queues bytes. Never throws, never waits. Ignored after the end or close. */
  write(bytes: Buffer): void;
  /** Settles when nothing is queued, or the sink has closed. Never rejects. */
  drained(): Promise<void>;
  /**
   * Settles after everything that the client sent before the call has been processed. If the client had
   * disconnected by then, `closed` is true. Over HTTP/2 it waits for the answer to a PING; HTTP/1.1 has no
   * PING, so it waits for half a second. Also settles when the sink closes. Never rejects.
   */
  roundTrip(): Promise<void>;
  /**
   * Flushes queued bytes, then closes; destroys the stream if the client does not read them within
   * `endMs`.
   */
  end(bytes?: Buffer): void;
  /** Closes now and drops queued bytes. The client sees an aborted or an ended stream. */
  destroy(): void;
  /** Calls the listener once, when the stream has closed for any reason. It must not throw. */
  onClose(listener: () => void): void;
}

const jsonHeaders = { 'content-type': 'application/json; charset=utf-8' };

/** Returns a reply with a JSON body. */
export function json(status: number, body: unknown, headers: Headers = {}): CompleteReply {
  return {
    status,
    headers: { ...jsonHeaders, ...headers },
    body: Buffer.from(JSON.stringify(body)),
  };
}

/** Returns a reply without a body: 204, or a redirect. */
export function empty(status: number, headers: Headers = {}): CompleteReply {
  return { status, headers };
}
