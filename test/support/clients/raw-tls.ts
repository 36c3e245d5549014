import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ca } from '../servers/certificate.js';
import { usesTls } from '../servers/scheme.js';
import { withDeadline } from '../with-deadline.js';

/**
 * A raw client over TLS or, in tests without TLS, over TCP, that follows no HTTP rules. It closes its side of
 * the connection only in `destroy`.
 */
export class RawTls {
  readonly socket: Socket;
  readonly #ended: Promise<void>;
  #isEnded = false;
  #buffer = Buffer.alloc(65_536);
  #length = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#ended = new Promise((resolve) => {
      const end = () => {
        this.#isEnded = true;
        resolve();
      };
      socket.once('end', end).once('close', end);
    });
    socket.on('error', () => {}); // Most tests expect the server to reset the connection.
    socket.on('data', (chunk: Buffer) => this.#append(chunk));
  }

  static async open(port: number, protocol: 'h2' | 'http/1.1'): Promise<RawTls> {
    const target = { port, host: '127.0.0.1', allowHalfOpen: true };
    const tlsOptions = { ca, ALPNProtocols: [protocol] };
    const socket = usesTls ? connectTls({ ...target, ...tlsOptions }) : connectTcp(target);
    const connected = once(socket, usesTls ? 'secureConnect' : 'connect');
    await withDeadline(connected, `a connection for ${protocol}`);
    return new RawTls(socket);
  }

  /** Settles when the server has ended the connection, gracefully or not. Rejects after a minute. */
  get ended(): Promise<void> {
    return withDeadline(this.#ended, () => `the end of the connection; ${this.#describeEnd()}`);
  }

  /** All bytes received so far. */
  get received(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  write(bytes: Buffer | string): void {
    if (this.socket.writable) this.socket.write(bytes);
  }

  /**
   * Settles when the condition holds for the received bytes, or the server has ended the connection.
   * Rejects after a minute with `missing`, by default the source text of the condition.
   */
  until(
    condition: (received: Buffer) => boolean,
    missing: string = String(condition),
  ): Promise<void> {
    const fulfilled = this.#waitFor(condition);
    return withDeadline(fulfilled, () => `${missing}; ${this.#describeEnd()}`);
  }

  async #waitFor(condition: (received: Buffer) => boolean): Promise<void> {
    while (!this.#isEnded && !condition(this.received)) {
      await Promise.race([once(this.socket, 'data').catch(() => {}), this.#ended]);
    }
  }

  #describeEnd(): string {
    return `the last bytes received: ${JSON.stringify(this.received.subarray(-200).toString('latin1'))}`;
  }

  /** Closes the socket abruptly, with TLS without close_notify. */
  destroy(): void {
    this.socket.destroy();
  }

  #append(chunk: Buffer): void {
    if (this.#length + chunk.length > this.#buffer.length) {
      const larger = Buffer.alloc(2 * (this.#length + chunk.length));
      this.#buffer.copy(larger);
      this.#buffer = larger;
    }
    this.#length += chunk.copy(this.#buffer, this.#length);
  }
}
