/**
 * Returns milliseconds. Clocks are injected, so that tests need not wait. A parameter named
 * `wallClock` (default `Date.now`) takes epoch milliseconds and may jump in either direction; one
 * named `monotonicClock` (default `performance.now`) never goes back and measures durations. In a
 * running system a `wallClock` is the time of the database (see `DatabaseClock`).
 */
export type Clock = () => number;
