/** The part of `d3-scale` and `d3-shape` that the plots use. */
export interface Scale {
  (value: number): number;
  domain(values: readonly [number, number]): this;
  range(positions: readonly [number, number]): this;
  nice(): this;
  ticks(count: number): number[];
  tickFormat(count: number): (value: number) => string;
}

type Point = readonly [x: number, y: number];

export function scaleLinear(): Scale;
export function scaleLog(): Scale;
export function line(): (points: readonly Point[]) => string | null;
