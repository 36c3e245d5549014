/** Blocks the calling thread for `ms`, to simulate a machine that stalls. */
export function blockThread(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
