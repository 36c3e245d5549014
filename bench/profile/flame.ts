import type { CallNode } from '../process/child.js';
import { numberText } from '../report/table.js';
import { isIdle, microsPerSample } from './breakdown.js';
import { betweenCalls, getPart, type Kind, type Part } from './part.js';
import type { ProfiledRun } from './profiled-run.js';

const width = 1200;
const rowHeight = 16;
const top = 30;
/** Boxes narrower than this share are omitted: there are many, and they are unreadable. */
const partMin = 0.003;
const charWidth = 6.1;

const colours: Partial<Record<Kind, string>> = {
  "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets": '#9aa5b1',
  "JavaScript of Herald's own, or its reference's": '#f2a65a',
  'JavaScript of Node': '#8ecae6',
  'JavaScript of packages': '#b7d7a8',
  'garbage collection, main thread': '#d98880',
  'native code called by JavaScript': '#cdd3da',
};

/** All calls of one function with the same callers. */
interface Frame {
  readonly name: string;
  readonly part: Part;
  micros: number;
  readonly callees: Map<string, Frame>;
}

/** Renders the call tree of the main thread as SVG: nested boxes, as wide as their CPU. */
export function flameGraph(title: string, window: ProfiledRun): string {
  const root = buildTree(window);
  const boxes: string[] = [];
  const depth = draw(root, { x: 0, level: 0, perMicro: width / root.micros }, boxes);
  const height = top + (depth + 1) * rowHeight + 4;
  const perOperation = numberText(root.micros / window.operations);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="10">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="4" y="18" font-size="13">${safe(title)}: ${perOperation} us</text>`,
    ...boxes,
    '</svg>\n',
  ].join('\n');
}

function buildTree(window: ProfiledRun): Frame {
  const each = microsPerSample(window);
  const byId = new Map(window.calls.map((node) => [node.id, node]));
  const root = frame('main thread', betweenCalls);
  const grow = (node: CallNode, into: Frame): number => {
    into.micros += node.hitCount * each;
    let sum = node.hitCount * each;
    for (const child of (node.children ?? []).flatMap((id) => byId.get(id) ?? [])) {
      if (isIdle(child)) continue;
      const name = getLabel(child);
      const callee = into.callees.get(name) ?? frame(name, getPart(child.callFrame, into.part));
      into.callees.set(name, callee);
      const micros = grow(child, callee);
      into.micros += micros;
      sum += micros;
    }
    return sum;
  };
  const [first] = window.calls;
  const sampled = first === undefined ? 0 : grow(first, root);
  const between = root.callees.get('(program)') ?? frame('(program)', betweenCalls);
  between.micros += window.main.cpu - sampled;
  root.callees.set('(program)', between);
  root.micros = window.main.cpu;
  return root;
}

function frame(name: string, part: Part): Frame {
  return { name, part, micros: 0, callees: new Map() };
}

/** Returns the function and its file; for an anonymous one, the file and line. */
function getLabel({ callFrame: { functionName, url, lineNumber } }: CallNode): string {
  const file = url
    .replace(/.*\/(dist|node_modules|bench)\//, '')
    .replace('node:internal/', 'node:');
  if (file === '') return functionName;
  return functionName === '' ? `${file}:${lineNumber + 1}` : `${functionName} ${file}`;
}

/** Draws a frame and its callees. Returns the level of the lowest box. */
function draw(
  one: Frame,
  { x, level, perMicro }: { x: number; level: number; perMicro: number },
  boxes: string[],
): number {
  const own = one.micros * perMicro;
  const [left, y, wide] = [x.toFixed(1), top + level * rowHeight, own.toFixed(1)];
  const fill = colours[one.part.kind] ?? '#eee';
  boxes.push(
    `<rect x="${left}" y="${y}" width="${wide}" height="15" fill="${fill}" stroke="#fff"/>`,
  );
  const label = one.name.slice(0, Math.max(0, Math.floor((own - 4) / charWidth)));
  if (label.length > 2) {
    boxes.push(`<text x="${(x + 2).toFixed(1)}" y="${y + 11}">${safe(label)}</text>`);
  }
  let lowest = level;
  let at = x;
  for (const callee of [...one.callees.values()].sort((a, b) => b.micros - a.micros)) {
    if (callee.micros * perMicro < partMin * width) continue;
    lowest = Math.max(lowest, draw(callee, { x: at, level: level + 1, perMicro }, boxes));
    at += callee.micros * perMicro;
  }
  return lowest;
}

function safe(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
