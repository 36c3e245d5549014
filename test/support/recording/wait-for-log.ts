import { until } from '../until.js';

/** Settles when a line with these fields has been logged; at once if `lines` has one already. */
export async function waitForLogLine(
  lines: readonly Readonly<Record<string, unknown>>[],
  fields: Readonly<Record<string, unknown>>,
): Promise<void> {
  const wanted = Object.entries(fields);
  await until(() => lines.some((line) => wanted.every(([name, value]) => line[name] === value)));
}

/**
 * Settles when a clean-up task has removed at least `rows` rows in total. The task may need several runs,
 * because a run may start before all rows to be removed exist.
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
