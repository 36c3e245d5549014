export type Headers = Readonly<Record<string, string>>;

/** What a handler answers. Only the server turns it into a head and a body. */
export type Reply = WholeReply | StreamedReply;

export interface WholeReply {
  readonly status: number;
  readonly headers: Headers;
  readonly body?: Buffer;
}

export interface StreamedReply {
  readonly status: number;
  readonly headers: Headers;
  /** Called once the head is sent, with the body to write. Not for HEAD, nor when the client left. */
  open(sink: Sink): void;
}

/** The body of a streamed reply, the same for both protocols. */
export interface Sink {
  /** Bytes accepted and not yet taken by the transport. */
  readonly queuedBytes: number;
  readonly closed: boolean;
  /** Never throws, never waits; ignored once ended or closed. */
  write(bytes: Buffer): void;
  /** Settles when nothing is queued, or the sink has closed. Never rejects, never hangs after that. */
  drained(): Promise<void>;
  /** Ends politely: what is queued goes out first, unless the client does not take it in time. */
  end(bytes?: Buffer): void;
  /** Ends now; what is queued is dropped. A client sees a stream that broke, or just ended. */
  destroy(): void;
  /** Calls the listener once, when the stream is over in whatever way. It must not throw. */
  onClose(listener: () => void): void;
}

const jsonHeaders = { 'content-type': 'application/json; charset=utf-8' };

export function json(status: number, body: unknown, headers: Headers = {}): WholeReply {
  return {
    status,
    headers: { ...jsonHeaders, ...headers },
    body: Buffer.from(JSON.stringify(body)),
  };
}

/** A reply without a body: 204, or a redirect. */
export function empty(status: number, headers: Headers = {}): WholeReply {
  return { status, headers };
}
