import type { Figure, Goal, Spread } from './figure.js';

/** Formats figures as a Markdown table, aligned for a terminal. */
export function buildTable(figures: readonly Figure[]): string {
  const columns = ['subject', 'what', 'median (min to max)', 'reference', 'ratio', 'goal', ''];
  const rows = figures.map((one) => [
    one.subject,
    getDescription(one),
    `${formatSpread(one)} ${one.unit}`.trim(),
    one.reference === undefined
      ? ''
      : `${one.reference.what}: ${formatNumber(one.reference.median)} ${one.unit}`.trim(),
    one.ratio === undefined ? '' : formatSpread(one.ratio),
    one.goal === undefined ? '' : formatGoal(one.goal),
    one.isGoalReached === undefined ? '' : one.isGoalReached ? 'reached' : 'missed',
  ]);
  return buildMarkdownTable(columns, rows);
}

/** Formats a Markdown table with padded columns. */
export function buildMarkdownTable(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = columns.map((name, column) =>
    Math.max(3, name.length, ...rows.map((row) => (row[column] ?? '').length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  const separator = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(columns), separator, ...rows.map(line)].join('\n');
}

export function getDescription({ what, parameters }: Figure): string {
  const details = Object.entries(parameters).map(([name, value]) => `${name} ${value}`);
  return details.length === 0 ? what : `${what} (${details.join(', ')})`;
}

export function formatSpread({ median, min, max }: Spread): string {
  const isSingleValue = min === max;
  return isSingleValue
    ? formatNumber(median)
    : `${formatNumber(median)} (${formatNumber(min)} to ${formatNumber(max)})`;
}

function formatGoal({ on, is, bound }: Goal): string {
  return on === 'ratio' ? `${is} ${bound} x` : `${is} ${bound}`;
}

/** Formats a number with three significant digits, or from 1000 up as an integer. */
export function formatNumber(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
