/**
 * Creates the payload of a benchmark event: `~`, the number (10 digits), the publish time in
 * microseconds (15 digits), `;`, then padding up to `bytes`. `~` occurs nowhere else in a response,
 * so a receiver can count events without parsing the server's response format.
 */
export function createMarkedData(number: number, bytes: number): string {
  const time = String(nowMicros()).padStart(timeDigits, '0');
  return `~${String(number).padStart(numberDigits, '0')}${time};`.padEnd(bytes, 'x');
}

/** Reads the machine's monotonic clock, so that times from different processes can be compared. */
export function nowMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

const markByte = 0x7e;
const zeroByte = 0x30;
const numberDigits = 10;
const timeDigits = 15;

/** Counts the benchmark events that one stream has received, and checks their numbers. */
export class Tally {
  events = 0;
  /**
   * Sum of the received numbers; together with `events` it reveals a missing or duplicate event.
   */
  sum = 0;
  /** Events whose number was not greater than that of the previous event. */
  outOfOrder = 0;
  /** The longest time between two reads, with or without events. */
  longestGapMicros = 0;
  #readAt = 0;
  #previousNumber = -1;
  /** How many digits of the current event were read; -1 between events. */
  #digit = -1;
  #number = 0;
  #time = 0;

  recordRead(readAt: number): void {
    const gap = this.#readAt === 0 ? 0 : readAt - this.#readAt;
    if (gap > this.longestGapMicros) this.longestGapMicros = gap;
    this.#readAt = readAt;
  }

  /**
   * Counts the events in a chunk of a body. Calls `onEvent` with each publish time, in microseconds.
   */
  feed(buffer: Buffer, start: number, end: number, onEvent: (publishedAt: number) => void): void {
    let offset = start;
    while (offset < end) {
      if (this.#digit === -1) {
        offset = buffer.indexOf(markByte, offset);
        if (offset === -1 || offset >= end) return;
        this.#digit = 0;
        this.#number = 0;
        this.#time = 0;
        offset += 1;
      }
      for (
        ;
        offset < end && this.#digit < numberDigits + timeDigits;
        offset += 1, this.#digit += 1
      ) {
        const value = (buffer[offset] ?? zeroByte) - zeroByte;
        if (this.#digit < numberDigits) this.#number = this.#number * 10 + value;
        else this.#time = this.#time * 10 + value;
      }
      if (this.#digit < numberDigits + timeDigits) return; // The next call reads the other digits.
      this.#digit = -1;
      this.events += 1;
      this.sum += this.#number;
      if (this.#number <= this.#previousNumber) this.outOfOrder += 1;
      this.#previousNumber = this.#number;
      onEvent(this.#time);
    }
  }

  reset(): void {
    this.events = 0;
    this.sum = 0;
    this.outOfOrder = 0;
    this.longestGapMicros = 0;
    this.#readAt = 0;
    this.#previousNumber = -1;
  }
}
