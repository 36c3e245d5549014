import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { createSelfSigned } from '../src/certificates/self-signed.js';
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

/** Queries that return whether their connection is encrypted, as a value or as the existence of a row. */
const encryptionQueries: Readonly<Record<ServerDialect, string>> = {
  postgres: 'select ssl as value from pg_stat_ssl where pid = pg_backend_pid()',
  mariadb: "show session status where variable_name = 'Ssl_cipher' and value <> ''",
  mysql: "show session status where variable_name = 'Ssl_cipher' and value <> ''",
};

/** The client's messages before the connection is encrypted, by their numbers from 1. */
const handshakeMessages: Readonly<Record<ServerDialect, readonly number[]>> = {
  postgres: [1, 2], // The TLS request; ClientHello.
  mariadb: [1], // The client sends both in one write.
  mysql: [1],
};

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const created = await createDedicatedServer(dialect, { tls: certificate });
  const skip = typeof created === 'string' ? created : false;
  const server = typeof created === 'string' ? undefined : created;
  const otherHostServer =
    skip === false ? await createDedicatedServer(dialect, { tls: otherHost }) : undefined;
  const proxiedServer =
    skip === false ? await createDedicatedServer(dialect, { tls: certificate }) : undefined;

  test(`${dialect}: the connection is encrypted and the certificate of the database server is verified`, {
    skip,
  }, async (t) => {
    assert.ok(server !== undefined && typeof otherHostServer === 'object');
    let db: Database | undefined;
    t.after(async () => {
      await db?.close();
      await Promise.all([server.remove(), otherHostServer.remove()]);
    });
    await Promise.all([server.start(), otherHostServer.start()]);
    const { options } = server;
    const trusting = { ...options, ssl: { ca: certificate.certificate } };

    await migrate(trusting);
    db = await openDatabase(trusting);
    const rows = await db.query<{ value: unknown }>({
      texts: [encryptionQueries[dialect]],
      values: [],
    });

    assert.equal(rows.length, 1);
    // PostgreSQL returns `value`; the others return a row only when the connection is encrypted.
    assert.notEqual(rows[0]?.value ?? Object.values(rows[0] ?? {})[1], false);
    assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
    const refusedOptions = [
      { ...options, ssl: true }, // Signed by an authority unknown to the system.
      { ...options, ssl: { ca: otherAuthority.certificate } },
      { ...otherHostServer.options, ssl: { ca: otherHost.certificate } }, // Issued for another host.
    ];
    await Promise.all(
      refusedOptions.map((refused) => assert.rejects(openDatabase(refused), /^Error: Cannot/)),
    );
  });
  test(`${dialect}: a disconnect during the TLS handshake fails only that connection`, {
    skip,
  }, async (t) => {
    assert.ok(typeof proxiedServer === 'object');
    const proxy = await openTcpProxy(proxiedServer.options);
    let db: Database | undefined;
    t.after(async () => {
      await db?.close();
      await Promise.all([proxy.close(), proxiedServer.remove()]);
    });
    await proxiedServer.start();
    const trusting = { ...proxiedServer.options, ssl: { ca: certificate.certificate } };
    const behindProxy = { ...trusting, port: proxy.port };
    await migrate(trusting);

    for (const nth of handshakeMessages[dialect]) {
      const ended = proxy.endNextAt(nth);
      const opened = await openDatabase(behindProxy).catch((error: unknown) => {
        assert.match(String(error), /^Error: Cannot open database/);
        return undefined;
      });
      await opened?.close(); // `postgres` retries by itself, so that opening can succeed.
      await ended;
    }
    db = await openDatabase(behindProxy);
    for (const nth of handshakeMessages[dialect]) {
      const ended = proxy.endNextAt(nth);
      proxy.cut();
      await until(() => answersWithOne(db)); // Opens a new connection.
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
