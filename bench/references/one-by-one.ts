// A reference for durable writes without a server: inserts rows like those of Herald into the same
// engine, also with `synchronous = full`, but with one transaction per event, one after the other, on
// the main thread.
import { join } from 'node:path';
import { loadSqlite } from '../../src/db/sqlite/load.js';
import { handleRequests } from '../process/request-handler.js';

const Driver = await loadSqlite();
const db = new Driver(join(process.env['FOLDER'] ?? '', 'one-by-one.db'));
for (const pragma of ['journal_mode = wal', 'synchronous = full', 'busy_timeout = 5000']) {
  db.exec(`pragma ${pragma}`);
}
db.exec(
  'create table log_head (id integer primary key, seq integer not null, bytes integer) strict',
);
db.exec('insert into log_head values (1, 0, 0)');
db.exec('create table events (seq integer primary key, type text, data text, at integer) strict');
db.exec(
  `create table event_audiences (audience text not null, seq integer not null,
    primary key (audience, seq)) strict, without rowid`,
);
db.exec('create index event_audiences_seq on event_audiences (seq)');

const countEvent = db.prepare('update log_head set seq = seq + 1, bytes = bytes + 200');
const insert = db.prepare('insert into events values (?, null, ?, ?)');
const insertAudience = db.prepare("insert into event_audiences values ('u:1', ?)");
const data = 'x'.repeat(200);
let seq = 0;

handleRequests({
  /** Inserts events for `durationMs`. Returns the number of events per second. */
  insert(durationMs: number) {
    const startedAt = performance.now();
    const seqBefore = seq;
    while (performance.now() - startedAt < durationMs) {
      seq += 1;
      db.exec('begin immediate');
      countEvent.run();
      insert.run(seq, data, Date.now());
      insertAudience.run(seq);
      // Also keeps `db` referenced: after its garbage collection the statements would fail.
      db.exec('commit');
    }
    return (seq - seqBefore) / ((performance.now() - startedAt) / 1000);
  },
});
process.stdout.write('ready\n');
