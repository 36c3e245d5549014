import { type MessagePort, workerData } from 'node:worker_threads';
import { openReader, StatementCache } from './file.js';
import { loadSqlite } from './load.js';
import { type ReaderCommand, type ThreadReply, toErrorParts } from './messages.js';

const { path, port } = workerData as { path: string; port: MessagePort };

/**
 * Runs queries on a read-only connection, in a separate thread (this file is its entry), so that a disk
 * that does not respond stops this thread and not the event loop.
 */
async function startReader(): Promise<void> {
  const connection = openReader(await loadSqlite(), path);
  const statements = new StatementCache(connection);
  const run = (command: ReaderCommand): object[] => {
    if (command.kind === 'query') {
      return statements.prepare(command.text).all(...command.values) as object[];
    }
    connection.close();
    return [];
  };
  port.on('message', (commands: readonly ReaderCommand[]) => {
    for (const command of commands) {
      const { id } = command;
      try {
        send({ results: [{ id, value: run(command) }] });
      } catch (error) {
        const { message, errcode } = toErrorParts(error);
        // On this connection "read-only" means a statement that writes, not a read-only disk.
        const isDefect = errcode === 8;
        send({ results: [{ id, error: { message, errcode: isDefect ? undefined : errcode } }] });
      }
      if (command.kind === 'close') port.close();
    }
  });
}

function send(reply: Partial<ThreadReply>): void {
  port.postMessage({ results: [], commits: 0, ...reply } satisfies ThreadReply);
}

try {
  await startReader();
  send({});
} catch (error) {
  send({ startError: toErrorParts(error) });
  port.close();
}
