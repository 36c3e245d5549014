// The folder of one run: what the tests record, and their temporary files.
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Creates the folder and removes it when this process ends. Its path is short, because database servers
 * have UNIX sockets in `temp`, whose paths have at most 103 bytes on macOS.
 */
export function createRunFolder() {
  const temp = mkdtempSync(join(tmpdir(), 'herald-'));
  chmodSync(temp, 0o1777); // As `/tmp`: database servers run as other users and create files in it.
  process.on('exit', () => {
    try {
      rmSync(temp, { recursive: true, force: true, maxRetries: 3 });
    } catch (error) {
      console.error(`Cannot remove ${temp}: ${error.message}`);
    }
  });
  const record = join(temp, 'record');
  mkdirSync(record);
  return { temp, record };
}
