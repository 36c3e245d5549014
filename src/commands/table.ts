/** Formats a head and rows as text, in columns as wide as their longest cell. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const lines = all.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)));
  return lines.map((cells) => cells.join('  ').trimEnd()).join('\n');
}

/** Formats a time as `2026-11-23 20:31:13`, UTC; empty for undefined. */
export function formatTime(atMs: number | undefined): string {
  return atMs === undefined ? '' : new Date(atMs).toISOString().slice(0, 19).replace('T', ' ');
}
