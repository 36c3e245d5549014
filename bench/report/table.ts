import type { Figure, Goal, Spread } from './figure.js';

/** Figures as a table of Markdown, which reads well in a terminal too. */
export function buildTable(figures: readonly Figure[]): string {
  const head = ['subject', 'what', 'median (min to max)', 'reference', 'ratio', 'goal', ''];
  const rows = figures.map((one) => [
    one.subject,
    getDescription(one),
    `${spreadText(one)} ${one.unit}`.trim(),
    one.reference === undefined
      ? ''
      : `${one.reference.what}: ${numberText(one.reference.median)} ${one.unit}`.trim(),
    one.ratio === undefined ? '' : spreadText(one.ratio),
    one.goal === undefined ? '' : goalText(one.goal),
    one.reached === undefined ? '' : one.reached ? 'reached' : 'missed',
  ]);
  return markdown(head, rows);
}

/** Cells of one column are as wide as its widest. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, column) =>
    Math.max(3, name.length, ...rows.map((row) => (row[column] ?? '').length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}

export function getDescription({ what, parameters }: Figure): string {
  const given = Object.entries(parameters).map(([name, value]) => `${name} ${value}`);
  return given.length === 0 ? what : `${what} (${given.join(', ')})`;
}

export function spreadText({ median, min, max }: Spread): string {
  const isOne = min === max;
  return isOne
    ? numberText(median)
    : `${numberText(median)} (${numberText(min)} to ${numberText(max)})`;
}

function goalText({ on, is, bound }: Goal): string {
  return on === 'ratio' ? `${is} ${bound} x` : `${is} ${bound}`;
}

/** Three digits, no exponent. */
export function numberText(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
