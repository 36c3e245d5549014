import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { findServer } from '../../../test/support/databases/test-server.js';
import { sql } from '../database.js';
import { migrate } from '../migrations/migrate.js';
import type { DatabaseServerOptions } from '../options.js';
import { connectMariadb, MariadbDatabase } from './mariadb.js';

const server = await findServer('mariadb');
const skip = typeof server === 'string' ? server : false;
if (typeof server !== 'string') {
  await migrate(server.options);
  after(() => server.drop());
}

/** Size of the packet of `getReceivedBytes` without the value: the command byte, the SQL text and the quotes. */
const overheadBytes = 1 + "select octet_length('') as bytes".length;

/** Sends `value` in a statement, and returns the number of bytes of it that the server received. */
async function getReceivedBytes(db: MariadbDatabase, value: string): Promise<number | undefined> {
  const rows = await db.query<{ bytes: number }>(sql`select octet_length(${value}) as bytes`);
  return rows[0]?.bytes;
}

async function withDatabase(
  work: (
    db: MariadbDatabase,
    packetBytesMax: number,
    options: DatabaseServerOptions,
  ) => Promise<void>,
): Promise<void> {
  if (typeof server === 'string') throw new Error(server);
  const db = await MariadbDatabase.open(server.options);
  try {
    const [row] = await db.query<{ bytes: number }>(sql`select @@max_allowed_packet as bytes`);
    assert.ok(row);
    await work(db, row.bytes, server.options);
  } finally {
    await db.close();
  }
}

// [description of the value, text that it repeats, bytes of that text in the statement]
const contents = [
  ['letters', 'x', 1],
  ['characters that are escaped or are more than one byte', `é'"\\\0\n`, 2 + 2 + 2 + 2 + 2 + 1],
] as const;

describe('statements near max_allowed_packet', { skip }, () => {
  test('the database server accepts a statement only if it is smaller than max_allowed_packet', () =>
    withDatabase(async (_, packetBytesMax, options) => {
      const connection = await connectMariadb(options);
      connection.on('error', () => {}); // The database server closes it.
      const query = (bytes: number) =>
        connection.query('select octet_length(?) as bytes', ['x'.repeat(bytes - overheadBytes)]);

      const [row] = await query(packetBytesMax - 1);
      const failure = await query(packetBytesMax).catch((error: unknown) => error);
      connection.destroy();

      assert.equal(row.bytes, packetBytesMax - 1 - overheadBytes);
      assert.ok(failure instanceof Error);
    }));

  for (const [what, text, bytes] of contents) {
    test(`a statement whose value consists of ${what} is refused when its size reaches max_allowed_packet`, () =>
      withDatabase(async (db, packetBytesMax) => {
        const valueBytesMax = packetBytesMax - 1 - overheadBytes;
        const count = Math.floor(valueBytesMax / bytes);
        const largest = text.repeat(count) + 'x'.repeat(valueBytesMax - count * bytes);

        assert.equal(await getReceivedBytes(db, largest), Buffer.byteLength(largest));
        await assert.rejects(getReceivedBytes(db, `${largest}x`), { name: 'payload_too_large' });
        await assert.rejects(getReceivedBytes(db, `${largest}xx`), { name: 'payload_too_large' });
      }));
  }
});
