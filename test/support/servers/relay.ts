import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** A way to a server that a test can break: everything on it is cut, and nobody gets through. */
export class Relay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isUp = true;

  private constructor(host: string, port: number) {
    this.#server = createServer((from) => {
      if (!this.#isUp) {
        from.destroy();
        return;
      }
      const to = connect(port, host);
      for (const [one, other] of [
        [from, to],
        [to, from],
      ] as const) {
        this.#sockets.add(one);
        one.on('error', () => {}); // Its close follows.
        one.once('close', () => {
          this.#sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  }

  /** The caller closes it. */
  static async open(host: string, port: number): Promise<Relay> {
    const relay = new Relay(host, port);
    relay.#server.listen(0, '127.0.0.1');
    await once(relay.#server, 'listening');
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // It listens on TCP.
  }

  down(): void {
    this.#isUp = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  up(): void {
    this.#isUp = true;
  }

  close(): void {
    this.down();
    this.#server.close();
  }
}
