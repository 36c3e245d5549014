// Node loads this module before each test file. The module prints the path of the file, for `results.mjs` and
// for readers of the output. It sets the folder of temporary files, and it ends a file that does not end by
// itself, because such a file would block the whole run.
import { relative } from 'node:path';
import { isMainThread } from 'node:worker_threads';

const graceMs = 5000; // Lets `node --test` end the file first: it has the same limit and a better message.
const file = process.argv[1] ?? '';
if (isMainThread && process.env['NODE_TEST_CONTEXT'] !== undefined && file.endsWith('.test.ts')) {
  process.stdout.write(`--- ${relative(process.cwd(), file)}\n`);
  // Not set by the parent process, because tsx has its cache in the folder that all runs share.
  process.env['TMPDIR'] = process.env['HERALD_TEST_TEMP'];
  const limitMs = Number(process.env['HERALD_TEST_FILE_MS']);
  setTimeout(() => {
    console.error(`Cannot finish: ${file} takes longer than ${limitMs / 60_000} minutes`);
    process.exit(1);
  }, limitMs + graceMs).unref();
}
