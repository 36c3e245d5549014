interface DriverConnection {
  readonly socket: NodeJS.EventEmitter | undefined;
  socketErrorHandler(): void;
}

interface DriverConnectionClass {
  readonly prototype: {
    createSecureContext?(this: DriverConnection, info: unknown, onSecure: () => void): void;
  };
}

let patching: Promise<void> | undefined;

/**
 * Patches the package `mariadb` so that it rejects a connection that the database server closes
 * during the TLS handshake. Idempotent; must be awaited before the first connection is opened.
 *
 * Without the patch, such a connection ends the process. Node's listener for `end` destroys the
 * socket with an error, which is emitted a tick later; the package's listener then removes all
 * listeners, so that error is unhandled. The patch runs the package's listener first, which
 * destroys the socket without an error and rejects the connection. The package's public API does
 * not suffice, because it exposes the socket only after the handshake.
 */
export function patchMariadbHandshake(): Promise<void> {
  patching ??= patch();
  return patching;
}

async function patch(): Promise<void> {
  const file = new URL('lib/connection.js', import.meta.resolve('mariadb'));
  const { prototype } = ((await import(file.href)) as { default: DriverConnectionClass }).default;
  const original = prototype.createSecureContext;
  if (original === undefined) return; // A later version; a test shows whether it needs the patch.
  prototype.createSecureContext = function (info, onSecure) {
    original.call(this, info, onSecure);
    this.socket?.prependListener('end', () => this.socketErrorHandler());
  };
}
