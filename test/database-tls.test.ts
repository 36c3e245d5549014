import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { createSelfSigned } from '../src/commands/self-signed.js';
import { type Database, sql } from '../src/db/database.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import { Failure } from '../src/errors.js';
import { createDedicatedServer } from './support/databases/dedicated-server.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

const certificate = createSelfSigned(['127.0.0.1'], Date.now());
const otherAuthority = createSelfSigned(['127.0.0.1'], Date.now());
const otherHost = createSelfSigned(['db.example.com'], Date.now());

/** Queries whether the connection of the query is encrypted. */
const isEncrypted: Readonly<Record<ServerDialect, string>> = {
  postgres: 'select ssl as value from pg_stat_ssl where pid = pg_backend_pid()',
  mariadb: "show session status where variable_name = 'Ssl_cipher' and value <> ''",
  mysql: "show session status where variable_name = 'Ssl_cipher' and value <> ''",
};

/** Numbers of the client's messages that are sent before the connection is encrypted. */
const handshakeMessages: Readonly<Record<ServerDialect, readonly number[]>> = {
  postgres: [1, 2], // The TLS request; ClientHello.
  mariadb: [1], // Both in one write.
  mysql: [1],
};

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const made = await createDedicatedServer(dialect, { tls: certificate });
  const skip = typeof made === 'string' ? made : false;
  const server = typeof made === 'string' ? undefined : made;
  const misnamed =
    skip === false ? await createDedicatedServer(dialect, { tls: otherHost }) : undefined;
  const proxied =
    skip === false ? await createDedicatedServer(dialect, { tls: certificate }) : undefined;

  test(`${dialect}: the connection is encrypted and the server's certificate is verified`, {
    skip,
  }, async (t) => {
    assert.ok(server !== undefined && typeof misnamed === 'object');
    let db: Database | undefined;
    t.after(async () => {
      await db?.close();
      await Promise.all([server.remove(), misnamed.remove()]);
    });
    await Promise.all([server.start(), misnamed.start()]);
    const { options } = server;
    const trusting = { ...options, ssl: { ca: certificate.certificate } };

    await migrate(trusting);
    db = await openDatabase(trusting);
    const rows = await db.query<{ value: unknown }>({ texts: [isEncrypted[dialect]], values: [] });

    assert.equal(rows.length, 1);
    assert.notEqual(rows[0]?.value ?? Object.values(rows[0] ?? {})[1], false);
    assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
    const refused = [
      { ...options, ssl: true }, // Signed by an authority unknown to the system.
      { ...options, ssl: { ca: otherAuthority.certificate } },
      { ...misnamed.options, ssl: { ca: otherHost.certificate } }, // Issued for another host.
    ];
    for (const bad of refused) await assert.rejects(openDatabase(bad), /^Error: Cannot/);
  });
  test(`${dialect}: a disconnect during the TLS handshake fails only that connection`, {
    skip,
  }, async (t) => {
    assert.ok(typeof proxied === 'object');
    const proxy = await openTcpProxy(proxied.options);
    let db: Database | undefined;
    t.after(async () => {
      await db?.close();
      await Promise.all([proxy.close(), proxied.remove()]);
    });
    await proxied.start();
    const trusting = { ...proxied.options, ssl: { ca: certificate.certificate } };
    const behindProxy = { ...trusting, port: proxy.port };
    await migrate(trusting);

    for (const nth of handshakeMessages[dialect]) {
      const ended = proxy.endNextAt(nth);
      const opened = await openDatabase(behindProxy).catch((error: unknown) => {
        assert.match(String(error), /^Error: Cannot open database/);
        return undefined;
      });
      await opened?.close(); // The package `postgres` retries by itself.
      await ended;
    }
    db = await openDatabase(behindProxy);
    for (const nth of handshakeMessages[dialect]) {
      const ended = proxy.endNextAt(nth);
      proxy.cut();
      await until(() => answersWithOne(db)); // On a new connection.
      await ended;
      await until(() => answersWithOne(db));
    }
  });
}

async function answersWithOne(db: Database | undefined): Promise<boolean> {
  try {
    return isDeepStrictEqual(await db?.query(sql`select 1 as one`), [{ one: 1 }]);
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    return false;
  }
}
