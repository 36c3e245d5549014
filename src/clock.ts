/**
 * Milliseconds. Handed in, so that tests need not wait. There are two: `clock`, by default `Date.now`,
 * tells times that others must understand, and may jump either way when it is set; `uptime`, by default
 * `performance.now`, only goes on, and measures how long something takes.
 */
export type Clock = () => number;
