interface DriverConnection {
  readonly socket: NodeJS.EventEmitter | undefined;
  socketErrorHandler(): void;
}

interface DriverConnectionClass {
  readonly prototype: {
    createSecureContext?(this: DriverConnection, info: unknown, onSecure: () => void): void;
  };
}

let mending: Promise<void> | undefined;

/**
 * Makes the package `mariadb` fail a connection that the server closes during the TLS handshake.
 * Idempotent; resolves before the first connection may be opened.
 *
 * By itself it ends the process. Node's listener for `end` destroys the socket with an error, which
 * is emitted a tick later; the package's own listener then removes all listeners, so nothing is left
 * to receive that error. Here the package's listener runs first: it destroys the socket without an
 * error and rejects the connection. Public interfaces of the package lead to the socket only after
 * the handshake.
 */
export function mendMariadbHandshake(): Promise<void> {
  mending ??= mend();
  return mending;
}

async function mend(): Promise<void> {
  const file = new URL('lib/connection.js', import.meta.resolve('mariadb'));
  const { prototype } = ((await import(file.href)) as { default: DriverConnectionClass }).default;
  const original = prototype.createSecureContext;
  if (original === undefined) return; // A later version; a test tells whether it still needs this.
  prototype.createSecureContext = function (info, onSecure) {
    original.call(this, info, onSecure);
    this.socket?.prependListener('end', () => this.socketErrorHandler());
  };
}
