import { until } from './until.js';

/** Settles when a system has logged a line with these fields, now or later. */
export async function logged(
  lines: readonly Readonly<Record<string, unknown>>[],
  fields: Readonly<Record<string, unknown>>,
): Promise<void> {
  const wanted = Object.entries(fields);
  await until(() => lines.some((line) => wanted.every(([name, value]) => line[name] === value)));
}
