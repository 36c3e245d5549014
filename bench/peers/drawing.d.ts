/** The part of `d3-scale` and `d3-shape` that the plots use. */
export interface Scale {
  (value: number): number;
  domain(values: readonly [number, number]): this;
  range(places: readonly [number, number]): this;
  nice(): this;
  ticks(count: number): number[];
  tickFormat(count: number): (value: number) => string;
}

type Place = readonly [x: number, y: number];

export function scaleLinear(): Scale;
export function scaleLog(): Scale;
export function line(): (places: readonly Place[]) => string | null;
