/**
 * Returns milliseconds. Clocks are injected, so that tests need not wait. `wallClock` (default
 * `Date.now`) gives epoch milliseconds and may jump in either direction; `monotonicClock` (default
 * `performance.now`) never goes back and measures durations.
 */
export type Clock = () => number;
