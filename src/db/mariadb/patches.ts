interface DriverConnection {
  readonly socket: NodeJS.EventEmitter | undefined;
  socketErrorHandler(): void;
}

interface ConnectionPrototype {
  createSecureContext?(this: DriverConnection, info: unknown, onSecure: () => void): void;
}

let patching: Promise<unknown> | undefined;

/**
 * Patches the package `mariadb`. Idempotent; must be awaited before the first connection or pool is created.
 */
export function patchMariadb(): Promise<unknown> {
  patching ??= Promise.all([patchHandshake(), patchPassword()]);
  return patching;
}

/**
 * Rejects a connection that the database server closes during the TLS handshake.
 *
 * Without the patch, such a connection ends the process. Node's listener for `end` destroys the socket with
 * an error, which is emitted a tick later. The package's listener for `end` then removes all listeners, so
 * nothing handles this error. The patch runs the package's listener first. This listener destroys the socket
 * without an error and rejects the connection. The public API of the package exposes the socket only after
 * the handshake, which is too late.
 */
async function patchHandshake(): Promise<void> {
  const prototype = await importPrototype<ConnectionPrototype>('lib/connection.js');
  const original = prototype.createSecureContext;
  if (original === undefined) return; // A later version; a test shows whether it needs the patch.
  prototype.createSecureContext = function (info, onSecure) {
    original.call(this, info, onSecure);
    this.socket?.prependListener('end', () => this.socketErrorHandler());
  };
}

/**
 * Lets the option `password` be a function, which returns the password for each connection. The package
 * copies the options once per pool, and then once per connection.
 */
async function patchPassword(): Promise<void> {
  const prototype = await importPrototype<object>('lib/config/connection-options.js');
  Object.defineProperty(prototype, 'password', {
    set(value: unknown) {
      const descriptor =
        typeof value === 'function' ? { get: value as () => unknown } : { value, writable: true };
      Object.defineProperty(this, 'password', { ...descriptor, enumerable: true });
    },
  });
}

async function importPrototype<Prototype>(path: string): Promise<Prototype> {
  const file = new URL(path, import.meta.resolve('mariadb'));
  return ((await import(file.href)) as { default: { prototype: Prototype } }).default.prototype;
}
