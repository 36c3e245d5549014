import { until } from '../until.js';

/** Settles when a system has logged a line with these fields, now or later. */
export async function waitForLogLine(
  lines: readonly Readonly<Record<string, unknown>>[],
  fields: Readonly<Record<string, unknown>>,
): Promise<void> {
  const wanted = Object.entries(fields);
  await until(() => lines.some((line) => wanted.every(([name, value]) => line[name] === value)));
}

/**
 * Settles when clean-up has removed so many rows in all for a task. One round may come before all that
 * it should remove is there, and do a part.
 */
export async function waitForCleanUp(
  lines: readonly Readonly<Record<string, unknown>>[],
  task: string,
  rows: number,
): Promise<void> {
  await until(() => {
    const batches = lines.filter(
      (line) => line['phrase'] === 'cleaned up' && line['task'] === task,
    );
    return batches.reduce((sum, line) => sum + Number(line['rows']), 0) >= rows;
  });
}
